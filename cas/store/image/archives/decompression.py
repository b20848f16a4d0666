"""Compressed streams as readers, with bounds on what they may expand to.

Only for archives as a whole; layers stay compressed until they are unpacked.
"""

__all__ = ["Decompressed", "PrefixReader", "decompressor_for"]

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from backports import zstd

from cas.errors import LimitExceededError, MalformedArchiveError
from cas.model.limits import Limits
from cas.store.content.sources import Reader

_INPUT_BYTES = 256 * 1024
_LZMA_MEMORY_BYTES = 96 * 1024 * 1024
"""What the strongest preset of xz needs (65 MiB), and no hostile header's 4 GiB."""
_GZIP_WINDOW = 31  # zlib's number for a gzip header around a 32 KiB window

_FAILURES = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)


class _Decompressor(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib with the manners of the other decompressors."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=_GZIP_WINDOW)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        result = self._inflate.decompress(self._tail + data, max(max_length, 0))
        self._tail = self._inflate.unconsumed_tail
        # A full answer may leave more output inside without any input left over.
        self.needs_input = not self._tail and len(result) != max_length
        return result


_MAGICS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", _Gzip),
    (b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)),
)


def decompressor_for(head: bytes) -> Callable[[], _Decompressor] | None:
    """Choose by the first bytes: gzip, zstd, bzip2 or xz; None for anything else."""
    for magic, make in _MAGICS:
        if head.startswith(magic):
            return make
    return None


class PrefixReader:
    """A stream whose first bytes were taken off to look at them."""

    def __init__(self, prefix: bytes, rest: Reader) -> None:
        self._prefix = prefix
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Read the prefix, then the rest."""
        if self._prefix:
            chunk, self._prefix = self._prefix[:size], self._prefix[size:]
            return chunk
        return self._rest.read(size)


class Decompressed:
    """Reads what a compressed stream holds.

    Args:
        stream: Compressed; errors of its own pass through.
        make: See :func:`decompressor_for`.
        origin: What messages call the stream.
        limits: How much more may come out than goes in.
    """

    def __init__(
        self, stream: Reader, make: Callable[[], _Decompressor], origin: str, limits: Limits
    ) -> None:
        self._stream = stream
        self._make = make
        self._origin = origin
        self._limits = limits
        self._decompressor = make()
        self._pending = b""
        self._taken = 0
        self._given = 0

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes, none at the end.

        Raises:
            MalformedArchiveError: The stream is damaged or truncated.
            LimitExceededError: It expands beyond the limit.
        """
        while True:
            if self._decompressor.eof and not self._next_part():
                return b""
            data = b""
            if self._decompressor.needs_input:
                data = self._input()
                if not data:
                    raise self._malformed("it is truncated")
            if chunk := self._decompress(data, size):
                self._given += len(chunk)
                self._check_expansion()
                return chunk

    def _input(self) -> bytes:
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        data = self._stream.read(_INPUT_BYTES)
        self._taken += len(data)
        return data

    def _next_part(self) -> bool:
        """Begin with the next of several compressed parts in a row, as gzip and zstd allow."""
        rest = self._decompressor.unused_data or self._input()
        while rest and not rest.strip(b"\0"):  # padding
            rest = self._input()
        if not rest:
            return False
        self._pending = rest
        self._decompressor = self._make()
        return True

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            return self._decompressor.decompress(data, size)
        except _FAILURES as error:
            raise self._malformed(f"it is damaged ({error})") from error

    def _check_expansion(self) -> None:
        most = max(
            self._limits.layer_expansion_floor_bytes, self._limits.layer_expansion * self._taken
        )
        if self._given > most:
            raise LimitExceededError(
                f"{self._origin} expands from {self._taken} to more than {most} bytes; decompress "
                "it first if it can be trusted",
                limit=most,
            )

    def _malformed(self, what: str) -> MalformedArchiveError:
        return MalformedArchiveError(
            f"cannot decompress {self._origin} beyond byte {self._given}: {what}",
            offset=self._given,
        )
