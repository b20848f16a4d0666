"""Sockets that a dead process left in the file system."""

__all__ = ["remove_dead_socket"]

import socket
import stat
from pathlib import Path

from cas.errors import InUseError
from cas.fsops.durable import remove_file
from cas.fsops.translation import translated


def remove_dead_socket(path: Path) -> None:
    """Remove a socket at which nobody listens any more; nothing there is fine.

    Raises:
        InUseError: Somebody listens there, or it is something else than a socket.
        StorageError: It cannot be looked at, or not removed.
    """
    with translated("inspect", path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISSOCK(mode):
        raise InUseError(
            f"{str(path)!r} exists and is no socket; move it away, or name another path", path=path
        )
    if _somebody_listens(path):
        raise InUseError(
            f"somebody serves at {str(path)!r} already; stop that, or name another path", path=path
        )
    remove_file(path, sync=False)


def _somebody_listens(path: Path) -> bool:
    with translated("connect to", path), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # so many callers that the next one has to wait
    return True
