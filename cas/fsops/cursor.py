"""Walking a directory tree that somebody hostile may have made; used inside fsops only.

One descriptor at a time whatever the depth, no path longer than a name, no symbolic link
followed, no mount crossed. Everything here raises ``OSError``; callers translate.
"""

__all__ = ["Cursor", "MountCrossedError"]

import errno
import os
from pathlib import Path
from typing import Self

from cas.fsops import descriptors

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class MountCrossedError(OSError):
    """A directory has something mounted on it."""


class Cursor:
    """A place in a tree; begins at its top, and leaving its ``with`` block closes it.

    Args:
        top: A directory, itself not a symbolic link. What is mounted on it counts as crossed,
            unless ``mounted_top`` is set.
    """

    def __init__(self, top: Path, *, mounted_top: bool = False) -> None:
        self._descriptor = descriptors.open_directory(top)
        self._way: list[tuple[str, os.stat_result]] = []
        self._path = str(top)
        try:
            self._mount = descriptors.mount_id(self._descriptor)
            if not mounted_top:
                self._refuse_mounted_top()
        except BaseException:
            self.close()
            raise

    def _refuse_mounted_top(self) -> None:
        parent = os.open("..", _FLAGS, dir_fd=self._descriptor)
        try:
            if descriptors.mount_id(parent) != self._mount:
                raise MountCrossedError(errno.EBUSY, "mounted", self._path)
        finally:
            os.close(parent)

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        return self._path

    @property
    def depth(self) -> int:
        """Levels below the top."""
        return len(self._way)

    def fileno(self) -> int:
        """Descriptor of the directory it is at."""
        return self._descriptor

    def status(self) -> os.stat_result:
        """Status of the directory it is at."""
        return os.fstat(self._descriptor)

    def descend(self, name: str) -> None:
        """Go into the subdirectory ``name``; after an error it is where it was.

        Raises:
            MountCrossedError: Something is mounted there.
        """
        child = os.open(name, _FLAGS, dir_fd=self._descriptor)
        try:
            self._refuse_mounted(child, name)
        except BaseException:
            os.close(child)
            raise
        self._way.append((name, self.status()))
        self._path = f"{self._path}/{name}"
        os.close(self._descriptor)
        self._descriptor = child

    def _refuse_mounted(self, child: int, name: str) -> None:
        if descriptors.mount_id(child) != self._mount:
            raise MountCrossedError(errno.EBUSY, "mounted", f"{self._path}/{name}")

    def ascend(self) -> str:
        """Go back to the directory it came from; gives the name of the one it leaves.

        Raises:
            OSError: Somebody moved the directory meanwhile (ESTALE).
        """
        parent = os.open("..", _FLAGS, dir_fd=self._descriptor)
        name, expected = self._way[-1]
        if not os.path.samestat(os.fstat(parent), expected):
            os.close(parent)
            raise OSError(errno.ESTALE, "moved during the walk", self.path)
        self._way.pop()
        self._path = self._path[: -len(name) - 1]
        os.close(self._descriptor)
        self._descriptor = parent
        return name

    def close(self) -> None:
        """Close it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
