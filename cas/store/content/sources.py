"""Where the bytes of a blob come from: a file, memory, a stream, a part of an archive.

A source is opened and read forward in chunks; some can be opened again, at any offset. Nothing
here hashes or stores. Reading fails with classes of :mod:`cas.errors` only.
"""

__all__ = [
    "BytesSource",
    "ChunkSource",
    "DescriptorReader",
    "FileSource",
    "PrefixedSource",
    "Reader",
    "SliceSource",
    "Source",
    "StreamSource",
]

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from cas.errors import StorageError, UsageError
from cas.fsops.beneath import inspect, open_source, remove_unchanged
from cas.fsops.translation import translated
from cas.model.limits import CHUNK_BYTES


class Reader(Protocol):
    """Something that is read forward; open binary files are readers."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end only."""


class Source(Protocol):
    """The bytes of one blob."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def path(self) -> Path | None:
        """The file that holds exactly these bytes, if there is one."""

    @property
    def size_hint(self) -> int | None:
        """How many bytes to expect, if that is known before reading; not a promise."""

    @property
    def repeatable(self) -> bool:
        """Whether :meth:`open` may be called again, and with an offset."""

    def open(self, offset: int = 0) -> AbstractContextManager[Reader]:
        """Read from ``offset``; 0 unless the source is repeatable."""


class BytesSource:
    """Bytes in memory."""

    repeatable = True
    path = None

    def __init__(self, data: bytes, name: str = "memory") -> None:
        self._data = data
        self.name = name
        self.size_hint = len(data)

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Read from ``offset``."""
        yield _MemoryReader(memoryview(self._data)[offset:])


class FileSource:
    """A file, followed if the path is a symbolic link.

    Args:
        path: The file; it is looked at when it is first needed.
        beneath: A directory that the file must lie below; no symbolic link is followed then, and
            it must be a regular file.
    """

    def __init__(self, path: Path, *, beneath: Path | None = None) -> None:
        self.path = path
        self.beneath = beneath
        self.name = repr(str(path))
        self._opened: os.stat_result | None = None

    @property
    def size_hint(self) -> int | None:
        """Bytes of a regular file.

        Raises:
            SourceNotFoundError: There is no such file.
            UsageError: It is a directory.
            DeniedError: It is not below ``beneath``.
        """
        status = inspect(self.path, self.beneath)
        if stat.S_ISREG(status.st_mode):
            return status.st_size
        if stat.S_ISDIR(status.st_mode) or self.beneath is not None:
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise UsageError(f"{self.name} is {what}; give a file", path=self.path)
        return None

    @property
    def repeatable(self) -> bool:
        """Only regular files are."""
        return self.size_hint is not None

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Read from ``offset``.

        Raises:
            SourceNotFoundError: There is no such file.
            DeniedError: It may not be read, or is not below ``beneath``.
        """
        descriptor = open_source(self.path, self.beneath)
        try:
            with translated("read", self.path):
                self._opened = os.fstat(descriptor)
                if offset:
                    os.lseek(descriptor, offset, os.SEEK_SET)
            yield DescriptorReader(descriptor, self.path)
        finally:
            os.close(descriptor)

    def remove(self) -> bool:
        """Remove the file durably, if the name still is the inode that was read, unchanged.

        Returns:
            Whether it was removed.
        """
        if self._opened is None:
            return False
        return remove_unchanged(self.path, self._opened, beneath=self.beneath)


class SliceSource:
    """A range of a file, such as a member of an uncompressed tar.

    Args:
        path: The file.
        offset: Where the range begins, bytes.
        size: Its length; a file that ends before is an error when it is read.
        name: What messages call it.
        beneath: See :class:`FileSource`.
    """

    repeatable = True
    path = None

    def __init__(
        self,
        path: Path,
        offset: int,
        size: int,
        name: str | None = None,
        *,
        beneath: Path | None = None,
    ) -> None:
        self._path = path
        self._beneath = beneath
        self._offset = offset
        self.size_hint = size
        self.name = name or f"bytes {offset} to {offset + size} of {str(path)!r}"

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Read from ``offset`` within the range.

        Raises:
            SourceNotFoundError: There is no such file.
            DeniedError: It may not be read.
        """
        descriptor = open_source(self._path, self._beneath)
        try:
            yield _RangeReader(
                descriptor, self._path, self._offset + offset, self._offset + self.size_hint
            )
        finally:
            os.close(descriptor)


class StreamSource:
    """Something that can be read once, such as standard input; closing it is the caller's.

    Args:
        stream: An open binary file or whatever reads like one.
        name: What messages call it.
        size: Bytes to expect, if known.
    """

    repeatable = False
    path = None

    def __init__(self, stream: Reader, name: str, size: int | None = None) -> None:
        self._stream = stream
        self.name = name
        self.size_hint = size

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Go on reading where the stream stands."""
        _require_start(self.name, offset)
        yield _StreamReader(self._stream, self.name)


class PrefixedSource:
    """A source of which the first bytes were read already. Opened once.

    Args:
        prefix: Those bytes.
        rest: Reads on from there.
        source: What both come from.
    """

    repeatable = False
    path = None

    def __init__(self, prefix: bytes, rest: Reader, source: Source) -> None:
        self._prefix = prefix
        self._rest = rest
        self.name = source.name
        self.size_hint = source.size_hint

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Read the prefix, then the rest."""
        _require_start(self.name, offset)
        yield _PrefixedReader(self._prefix, self._rest)


class ChunkSource:
    """Chunks that somebody makes, each of any size.

    Args:
        chunks: Makes them, from the first; called once.
        name: What messages call it.
        size: Bytes to expect, if known.
    """

    repeatable = False
    path = None

    def __init__(
        self, chunks: Callable[[], Iterator[bytes]], name: str, size: int | None = None
    ) -> None:
        self._chunks = chunks
        self.name = name
        self.size_hint = size

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        """Read the chunks."""
        _require_start(self.name, offset)
        yield _ChunkReader(self._chunks())


class _ChunkReader:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return b""
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return bytes(chunk)


class _MemoryReader:
    def __init__(self, data: memoryview) -> None:
        self._rest = data

    def read(self, size: int) -> bytes:
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return bytes(chunk)


class DescriptorReader:
    """Reads an open file from where it stands; closing it is the opener's."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    def fileno(self) -> int:
        """The file's descriptor, for sharing its blocks."""
        return self._descriptor

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, none at the end only."""
        with translated("read", self._path):
            return os.read(self._descriptor, size)


class _RangeReader:
    def __init__(self, descriptor: int, path: Path, position: int, end: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self._position = position
        self._end = end

    def read(self, size: int) -> bytes:
        # Positioned, so that several members of one archive can be read at once.
        with translated("read", self._path):
            chunk = os.pread(
                self._descriptor, min(size, self._end - self._position), self._position
            )
        self._position += len(chunk)
        return chunk


class _StreamReader:
    def __init__(self, stream: Reader, name: str) -> None:
        self._stream = stream
        self._name = name

    def read(self, size: int) -> bytes:
        with translated("read", self._name):
            return self._stream.read(min(size, CHUNK_BYTES))


class _PrefixedReader:
    def __init__(self, prefix: bytes, rest: Reader) -> None:
        self._prefix = memoryview(prefix)
        self._rest = rest

    def read(self, size: int) -> bytes:
        if self._prefix:
            chunk, self._prefix = self._prefix[:size], self._prefix[size:]
            return bytes(chunk)
        return self._rest.read(size)


def _require_start(name: str, offset: int) -> None:
    if offset:
        raise StorageError(f"{name} can be read from its start only, not from {offset}")
