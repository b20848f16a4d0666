"""The socket in the file system: one server at a time, and never open to more than it should be."""

__all__ = ["SocketFile"]

import os
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from cas.containerd.socket_path import check_socket_path
from cas.errors import InUseError, LockTimeoutError, StorageError
from cas.fsops.dead_sockets import remove_dead_socket
from cas.fsops.durable import make_directory, remove_file
from cas.fsops.locks import FileLock
from cas.fsops.socket_access import set_socket_access

_DIRECTORY_MODE = 0o755


class SocketFile:
    """A name for a socket, held by a lock beside it.

    Args:
        path: The socket.
        mode: Its permission bits.
        gid: Its group; None for that of the process.
    """

    def __init__(self, path: Path, *, mode: int, gid: int | None) -> None:
        self._path = path
        self._mode = mode
        self._gid = gid
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))

    def claim(self) -> None:
        """Take the name; a socket that a dead server left is removed.

        Raises:
            InUseError: Another server has it, or it is something else than a socket.
            SocketPathError: It is too long for a socket.
            StorageError: The directory cannot be made, or the old socket not removed.
        """
        check_socket_path(self._path)
        make_directory(self._path.parent, mode=_DIRECTORY_MODE, parents=True)
        try:
            self._lock.acquire(timeout_seconds=0)
        except LockTimeoutError as error:
            raise InUseError(
                f"another service serves on {str(self._path)!r}: {error.message}", path=self._path
            ) from error
        try:
            remove_dead_socket(self._path)
        except BaseException:
            self._lock.release()
            raise

    def bind(self, listen: Callable[[str], int]) -> None:
        """Make the socket; nobody but its group can connect at any moment.

        Args:
            listen: gRPC's, which takes an address.

        Raises:
            StorageError: It cannot be made.
        """
        before = os.umask(0o777 & ~stat.S_IRUSR & ~stat.S_IWUSR)
        try:
            port = listen(f"unix:{quote(str(self._path))}")
        except RuntimeError as error:
            raise self._unusable(str(error)) from error
        finally:
            os.umask(before)
        if port == 0:
            raise self._unusable("gRPC gives no reason")
        set_socket_access(self._path, group=self._gid, mode=self._mode)

    def release(self) -> None:
        """Remove the socket and give the name up. Idempotent."""
        remove_file(self._path, sync=False)
        self._lock.release()

    def _unusable(self, reason: str) -> StorageError:
        return StorageError(f"cannot listen on {str(self._path)!r}: {reason}", path=self._path)
