"""Whether somebody listens on the service's socket; asked without loading gRPC."""

__all__ = ["probe"]

import socket
from pathlib import Path

from cas.containerd.socket_path import check_socket_path
from cas.errors import DeniedError, ServiceUnavailableError


def probe(path: Path) -> None:
    """Connect to a socket and hang up; returns if somebody listens.

    Raises:
        ServiceUnavailableError: Nobody listens: there is no socket, or only one that a killed
            service left.
        DeniedError: The socket may not be used by this user.
        SocketPathError: The path is too long for a socket.
    """
    check_socket_path(path, option="--service-address")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            return  # so many callers that the next one has to wait
        except PermissionError as error:
            raise DeniedError(
                f"the service's socket {path} may not be used by this user; run as root or as a "
                "member of the socket's group",
                socket=path,
            ) from error
        except OSError as error:
            raise ServiceUnavailableError(
                f"the service does not answer on {path} ({error.strerror}); start it with "
                "`cas serve`, or name another socket with --service-address",
                socket=path,
            ) from error
