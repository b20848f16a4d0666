"""How long the path of a unix socket may be."""

__all__ = ["MAX_SOCKET_BYTES", "check_socket_path"]

import os
from pathlib import Path

from cas.errors import SocketPathError

MAX_SOCKET_BYTES = 107
"""Room in ``sockaddr_un`` for a path, its final NUL left out. Source: unix(7)."""


def check_socket_path(socket: Path, *, option: str = "--address") -> None:
    """Refuse a path that the kernel would not take.

    Args:
        socket: The path.
        option: How to name another socket.

    Raises:
        SocketPathError: It is longer than :data:`MAX_SOCKET_BYTES`.
    """
    size = len(os.fsencode(socket))
    if size > MAX_SOCKET_BYTES:
        raise SocketPathError(
            f"socket path {socket} has {size} bytes, at most {MAX_SOCKET_BYTES} are possible; "
            f"choose a shorter directory with --persist or a shorter socket with {option}",
            socket=socket,
            actual=size,
        )
