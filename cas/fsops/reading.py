"""Reading files without waiting for whoever put something else in their place."""

__all__ = ["RegularFile", "open_regular", "regular_file"]

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cas.errors import StorageError
from cas.fsops import descriptors
from cas.fsops.translation import translated


class RegularFile:
    """A regular file that has one name, open to read; made by :func:`open_regular`."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.size = size
        """Bytes when it was opened."""

    def fileno(self) -> int:
        """Its descriptor."""
        return self._descriptor

    def chunks(self) -> Iterator[bytes]:
        """Read it from the start, in chunks of at most 1 MiB."""
        with translated("read", self._path):
            yield from descriptors.read_chunks(self._descriptor)


@contextmanager
def open_regular(path: Path) -> Iterator[RegularFile]:
    """Open a file without following a link or waiting for a pipe's other end.

    Raises:
        SourceNotFoundError: There is nothing of that name.
        DeniedError: The process may not read it.
        StorageError: It is no regular file, or has more names than one; nothing was read.
    """
    with translated("open", path, source=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise StorageError(
                f"{str(path)!r} is not a regular file with one name (type "
                f"{stat.S_IFMT(status.st_mode):o}, {status.st_nlink} names); nothing of it is read",
                path=path,
            )
        yield RegularFile(path, descriptor, status.st_size)
    finally:
        os.close(descriptor)


def regular_file(path: Path) -> BinaryIO:
    """Open a file of ours or of the configuration; links are followed.

    Raises:
        OSError: As of :func:`open`, at once, too, where there is a pipe instead; the caller
            translates.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - Path.open has no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
