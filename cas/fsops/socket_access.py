"""Who may connect to a socket in the file system."""

__all__ = ["bound_for_owner", "set_socket_access"]

import os
import socket
import stat
from pathlib import Path

from cas.errors import InUseError
from cas.fsops.translation import translated


def bound_for_owner(listener: socket.socket, path: Path) -> None:
    """Bind so that nobody but its owner can connect, whatever the process's umask is.

    Raises:
        OSError: As of ``bind``.
    """
    os.fchmod(listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)  # Linux gives the name this mode
    listener.bind(str(path))


def set_socket_access(path: Path, *, group: int | None, mode: int) -> None:
    """Give a socket its group and its permission bits; what took its place is left as it is.

    Args:
        path: The socket.
        group: None leaves it.
        mode: Permission bits.

    Raises:
        InUseError: There is something else than a socket now, such as a link.
        StorageError: A system call failed.
    """
    with translated("set owner and mode of", path):
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                raise InUseError(f"somebody put something else in the place of {str(path)!r}")
            same = f"/proc/self/fd/{descriptor}"
            os.chown(same, -1, -1 if group is None else group)
            Path(same).chmod(mode)
        finally:
            os.close(descriptor)
