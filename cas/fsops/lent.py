"""A file in its place that somebody else may open for a while, without the way to it."""

__all__ = ["LentFile"]

import os
from pathlib import Path
from typing import Self

from cas.fsops.draft import allocated_bytes_of
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LentFile:
    """An open file that has another owner while the ``with`` block runs; durable after it.

    A kill in the block leaves the other owner.

    Args:
        path: A regular file.
        user: Who gets it.
        group: Whose members get what the group may do.
        lost: Nobody knows whose it was, so that root gets it back, and the directory's group.

    Raises:
        StorageError: It does not exist, or another system call failed.
    """

    def __init__(self, path: Path, *, user: int, group: int, lost: bool = False) -> None:
        self._path = path
        with translated("open", path):
            self._descriptor = os.open(path, _OPEN)
            status = os.fstat(self._descriptor)
            self._owner = status.st_uid, status.st_gid
            if lost:
                self._owner = 0, path.parent.stat().st_gid
        self._borrower = user, group

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
            os.close(self._descriptor)
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

    def _give(self, user: int, group: int) -> None:
        with translated("set the owner of", self._path):
            mode = os.fstat(self._descriptor).st_mode
            effect(Effect.ACCESS, self._path)
            os.fchown(self._descriptor, user, group)
            os.fchmod(self._descriptor, mode & 0o7777)
