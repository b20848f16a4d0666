"""Large files with holes, under construction at a hidden name.

What is all zeros is not written: it stays a hole. Nothing is durable before :meth:`DraftFile.seal`,
and nothing here gives a file its final name, which is :func:`cas.fsops.durable.publish`.
"""

__all__ = ["DraftFile", "allocated_bytes_of"]

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cas.fsops import descriptors, kernel
from cas.fsops.attributes import copy_extended
from cas.fsops.effects import Effect, effect
from cas.fsops.sparse import iter_data
from cas.fsops.translation import translated

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 64 * 1024
"""A run of zeros shorter than that is not worth a hole."""
_ZEROS = bytes(_BLOCK_BYTES)
_ALLOCATION_UNIT = 512


class DraftFile:
    """A file that is being written; leaving its ``with`` block closes it, and its name stays.

    Args:
        path: A name that nobody has yet.

    Raises:
        AlreadyExistsError: Something has the name.
        NoSpaceError: No room.
        StorageError: Any other failed system call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        with translated("make", path):
            effect(Effect.WRITE_FILE, path)
            self._descriptor = os.open(path, _CREATE, 0o600)

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

    def read_at(self, offset: int, size: int) -> bytes:
        """Give at most so many bytes from an offset, fewer only at the end."""
        with translated("read", self._path):
            return os.pread(self._descriptor, size, offset)

    def append(self, data: bytes) -> None:
        """Add ``data``; runs of zeros become holes.

        Raises:
            NoSpaceError: No room; a part may be written.
        """
        with translated("write", self._path):
            effect(Effect.WRITE_FILE, self._path)
            _write_sparse(self._descriptor, self._end, data)
        self._end += len(data)

    def finish_appending(self) -> None:
        """Give the file the length of what was appended, should that end with zeros."""
        self.resize(max(self._end, self.size))

    def resize(self, size: int) -> None:
        """Cut it, or make it longer by a hole."""
        with translated("resize", self._path):
            effect(Effect.WRITE_FILE, self._path)
            os.ftruncate(self._descriptor, size)

    def clone(self, source: int) -> bool:
        """Become a copy of an open file by sharing its blocks; False where that is impossible."""
        with translated("clone into", self._path):
            effect(Effect.WRITE_FILE, self._path)
            return descriptors.clone(source, self._descriptor)

    def copy(self, source: int, advance: Callable[[int], None]) -> None:
        """Become a copy of an open file; holes and runs of zeros are left out.

        Args:
            source: Descriptor of a regular file.
            advance: Told how many more bytes are done, at least once per MiB of data; may raise.

        Raises:
            NoSpaceError: No room; a part may be written.
        """
        with translated("copy into", self._path):
            size = os.fstat(source).st_size
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            done = 0
            for offset, chunk in iter_data(source, size):
                effect(Effect.WRITE_FILE, self._path)
                _write_sparse(self._descriptor, offset, chunk)
                advance(offset + len(chunk) - done)
                done = offset + len(chunk)
            advance(size - done)
            os.ftruncate(self._descriptor, size)

    def give_to(self, user: int, group: int) -> None:
        """Make it somebody's, who may then open it although the directory is not theirs."""
        with translated("set the owner of", self._path):
            effect(Effect.ACCESS, self._path)
            os.fchown(self._descriptor, user, group)

    def seal(self, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        """Make it durable; its name is not.

        Args:
            mode: Permission bits.
            owner: User and group; None for root, and the group of its directory.

        Raises:
            StorageError: The sync failed; discard the file.
        """
        with translated("sync", self._path):
            effect(Effect.ACCESS, self._path)
            user, group = owner or (0, self._path.parent.stat().st_gid)
            os.fchown(self._descriptor, user, group)
            os.fchmod(self._descriptor, mode)
            effect(Effect.FSYNC, self._path)
            os.fsync(self._descriptor)

    def seal_like(self, model: int) -> None:
        """Make it durable with the owner, mode and extended attributes of an open file.

        Raises:
            StorageError: One cannot be set, or the sync failed; discard the file.
        """
        with translated("set the attributes of", self._path):
            status = os.fstat(model)
            effect(Effect.ACCESS, self._path)
            copy_extended((model, ""), (self._descriptor, ""))
        owner = status.st_uid, status.st_gid
        self.seal(mode=stat.S_IMODE(status.st_mode), owner=owner)

    def close(self) -> None:
        """Close it; the name stays. Idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def allocated_bytes_of(descriptor: int) -> int:
    """Bytes that are allocated for an open file."""
    return os.fstat(descriptor).st_blocks * _ALLOCATION_UNIT


def _write_sparse(target: int, offset: int, data: bytes) -> None:
    """Write at an offset, leaving out whole blocks of zeros."""
    view = memoryview(data)
    start = 0
    while start < len(data):
        if data.startswith(_ZEROS, start):
            start += _BLOCK_BYTES
            continue
        end = start + _BLOCK_BYTES
        while end < len(data) and not data.startswith(_ZEROS, end):
            end += _BLOCK_BYTES
        rest, at = view[start:end], offset + start
        while rest:
            written = os.pwrite(target, rest, at)
            # The device begins now, so that the sync at the end has less to wait for.
            kernel.start_writeback(target, at, written)
            rest, at = rest[written:], at + written
        start = end
