"""One pass over the content of files: hashed, and copied with holes where that is asked for."""

__all__ = ["FilePass"]

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack

from cas.errors import SourceChangedError
from cas.fsops.sparse import iter_data, iter_runs

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNC_BYTES = 64 * 1024 * 1024


class FilePass:
    """Passes over one file after the other, synced now and then, but not at the end.

    Args:
        advance: Told how many bytes more were read; may raise to stop the work.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._unsynced = 0

    def read(self, near: int, name: str, far: int | None, far_name: str) -> bytes:
        """Read a file, and write what is no hole of it to a new one if there is a directory.

        Args:
            near: Descriptor of its directory.
            name: In that.
            far: Descriptor of the directory to copy it to.
            far_name: In that; free.

        Returns:
            Its size and the digest of its pages that are not zero.

        Raises:
            SourceChangedError: It was written to meanwhile.
            OSError: A system call failed.
        """
        with ExitStack() as stack:
            source = os.open(name, _READ, dir_fd=near)
            stack.callback(os.close, source)
            before = os.fstat(source)
            target = None
            if far is None:
                os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                target = os.open(far_name, _CREATE, 0o600, dir_fd=far)
                stack.callback(os.close, target)
            told = self._read_data(source, target, before.st_size)
            if target is not None:
                os.ftruncate(target, before.st_size)
            if _written(before) != _written(os.fstat(source)):
                raise SourceChangedError(f"{name!r} was written to while it was read", path=name)
            return told

    def _read_data(self, source: int, target: int | None, size: int) -> bytes:
        content = hashlib.sha256()
        for offset, chunk in iter_data(source, size):
            self._advance(len(chunk))
            if target is not None:
                _write_at(target, chunk, offset)
                self._unsynced += len(chunk)
                if self._unsynced >= _SYNC_BYTES:
                    # Not all at the end: that would be a long time without a sign of life.
                    os.fdatasync(target)
                    self._unsynced = 0
            for start, run in iter_runs(offset, chunk):
                content.update(b"%d %d " % (start, len(run)))
                content.update(run)
        return b"%d %s" % (size, content.hexdigest().encode())


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        offset += written
        rest = rest[written:]


def _written(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
