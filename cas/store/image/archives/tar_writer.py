"""Writes tars whose bytes depend on names and contents alone."""

__all__ = ["TarWriter", "Writable"]

import tarfile
from collections.abc import Iterable
from typing import Protocol

from cas.errors import CorruptBlobError

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_FILE_MODE = 0o444
_DIRECTORY_MODE = 0o755


class Writable(Protocol):
    """Something that takes bytes; open binary files do."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class TarWriter:
    """A tar that is written forward, to a pipe if need be.

    Every member belongs to root and has no time, so that the same content gives the same tar.

    Args:
        out: Takes the tar.
    """

    def __init__(self, out: Writable) -> None:
        self._out = out

    def add_directory(self, name: str) -> None:
        """Write a directory."""
        self._header(name, 0, kind=tarfile.DIRTYPE, mode=_DIRECTORY_MODE)

    def add_bytes(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.add_chunks(name, len(data), [data])

    def add_chunks(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write a file that comes in chunks.

        Raises:
            CorruptBlobError: The chunks are not ``size`` bytes; the tar is unusable then.
        """
        self._header(name, size, kind=tarfile.REGTYPE, mode=_FILE_MODE)
        count = 0
        for chunk in chunks:
            count += len(chunk)
            if count > size:
                break
            self._out.write(chunk)
        if count != size:
            raise CorruptBlobError(
                f"content of {name!r} has {count} bytes or more, expected {size}; "
                "run 'cas check --read-data'",
                expected=size,
                actual=count,
            )
        if padding := -size % _BLOCK:
            self._out.write(bytes(padding))

    def finish(self) -> None:
        """Write the end mark; ``out`` stays open."""
        self._out.write(_END)

    def _header(self, name: str, size: int, *, kind: bytes, mode: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.mode = size, kind, mode
        self._out.write(member.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape"))
