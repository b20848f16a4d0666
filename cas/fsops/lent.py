"""A file in its place that somebody else may open for a while, without the way to it."""

__all__ = ["LentFile"]

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from cas.errors import CasError, StorageError
from cas.fsops.draft import allocated_bytes_of
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LentFile:
    """An open file that has another owner while the ``with`` block runs; durable after it.

    A kill in the block leaves the other owner; a failure on entry does not.

    Args:
        path: A regular file with one name: who gets it could write to what another name stands for.
        user: Who gets it.
        group: Whose members get what the group may do.
        lost: Nobody knows whose it was, so that root gets it back, and the directory's group.

    Raises:
        StorageError: It does not exist, is no such file, or another system call failed.
    """

    def __init__(self, path: Path, *, user: int, group: int, lost: bool = False) -> None:
        self._path = path
        self._borrower = user, group
        with translated("open", path):
            self._descriptor = os.open(path, _OPEN)
        try:
            self._owner = self._lender(lost=lost)
        except BaseException:
            os.close(self._descriptor)
            raise

    def fileno(self) -> int:
        """Its descriptor, to read and to write."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Bytes, holes included."""
        with translated("inspect", self._path):
            return os.fstat(self._descriptor).st_size

    @property
    def allocated(self) -> int:
        """Bytes that its file system has given it."""
        with translated("inspect", self._path):
            return allocated_bytes_of(self._descriptor)

    def __enter__(self) -> Self:
        try:
            self._give(*self._borrower)
        except BaseException:
            with suppress(CasError):
                self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._give(*self._owner)
            with translated("sync", self._path):
                effect(Effect.FSYNC, self._path)
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _lender(self, *, lost: bool) -> tuple[int, int]:
        with translated("inspect", self._path):
            status = os.fstat(self._descriptor)
            directory = self._path.parent.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise StorageError(
                f"{str(self._path)!r} is not a regular file with one name (type "
                f"{stat.S_IFMT(status.st_mode):o}, {status.st_nlink} names); remove the other ones",
                path=self._path,
            )
        return (0, directory.st_gid) if lost else (status.st_uid, status.st_gid)

    def _give(self, user: int, group: int) -> None:
        with translated("set the owner of", self._path):
            mode = os.fstat(self._descriptor).st_mode
            effect(Effect.ACCESS, self._path)
            os.fchown(self._descriptor, user, group)
            os.fchmod(self._descriptor, mode & 0o7777)
