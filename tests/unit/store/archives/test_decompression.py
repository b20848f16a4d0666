"""Compressed streams: each method, damage, truncation, bombs."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from backports import zstd

from cas.errors import LimitExceededError, MalformedArchiveError
from cas.model.limits import Limits
from cas.store.image.archives.archive import read_exactly
from cas.store.image.archives.decompression import Decompressed, PrefixReader, decompressor_for

LIMITS = Limits()


def _checked_zstd(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


METHODS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": _checked_zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
DATA = os.urandom(300_000) + bytes(700_000) + b"end"

each_method = pytest.mark.parametrize("compress", METHODS.values(), ids=METHODS)


def decompressed(raw: bytes, limits: Limits = LIMITS) -> Decompressed:
    """A reader of what ``raw`` holds."""
    make = decompressor_for(raw[:512])
    assert make is not None
    return Decompressed(io.BytesIO(raw), make, "test stream", limits)


@each_method
@pytest.mark.parametrize("size", [1000, 65_536, 10_000_000])
def test_read_in_any_portion_gives_the_content(
    compress: Callable[[bytes], bytes], size: int
) -> None:
    """The content comes whole, never more at once than asked for."""
    reader = decompressed(compress(DATA))
    chunks = list(iter(lambda: reader.read(size), b""))
    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) <= size
    assert reader.read(size) == b""


@each_method
def test_read_several_parts_in_a_row_gives_all(compress: Callable[[bytes], bytes]) -> None:
    """Streams may be joined; thousands of parts do not pile up."""
    raw = compress(b"part") * 3000
    assert read_exactly(decompressed(raw), 100_000) == b"part" * 3000


@each_method
def test_read_padding_after_the_end_is_passed_over(compress: Callable[[bytes], bytes]) -> None:
    """Null bytes behind the stream, as tapes and some tools leave them, are no damage."""
    assert read_exactly(decompressed(compress(b"data") + bytes(600_000)), 100) == b"data"


@each_method
def test_read_truncated_is_noticed(compress: Callable[[bytes], bytes]) -> None:
    """A stream that ends early is an error that names it."""
    raw = compress(DATA)
    with pytest.raises(MalformedArchiveError, match="test stream"):
        read_exactly(decompressed(raw[: len(raw) // 2]), len(DATA))


@each_method
def test_read_damaged_is_noticed(compress: Callable[[bytes], bytes]) -> None:
    """A flipped byte in the middle never passes: checksums are looked at."""
    raw = bytearray(compress(DATA))
    raw[len(raw) // 2] ^= 0xFF
    with pytest.raises(MalformedArchiveError):
        read_exactly(decompressed(bytes(raw)), 100 * len(DATA))


@each_method
def test_read_bomb_is_stopped(compress: Callable[[bytes], bytes]) -> None:
    """What expands beyond floor and ratio ends with a limit."""
    limits = replace(LIMITS, layer_expansion=20, layer_expansion_floor_bytes=100_000)
    reader = decompressed(compress(bytes(20_000_000)), limits)
    with pytest.raises(LimitExceededError):
        read_exactly(reader, 19_000_000)


def test_read_small_expansion_below_the_floor_is_free() -> None:
    """Little data may compress as well as it likes."""
    limits = replace(LIMITS, layer_expansion=1, layer_expansion_floor_bytes=100_000)
    assert (
        len(read_exactly(decompressed(gzip.compress(bytes(100_000)), limits), 200_000)) == 100_000
    )


def test_read_xz_that_wants_gigabytes_is_refused() -> None:
    """The dictionary that a header asks for is bounded."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    raw = lzma.compress(b"x", filters=filters)
    with pytest.raises(MalformedArchiveError):
        decompressed(raw).read(10)


def test_decompressor_for_other_content_is_none() -> None:
    """Plain tars and empty input need no decompression."""
    assert decompressor_for(b"") is None
    assert decompressor_for(b"\x1f") is None
    assert decompressor_for(b"ustar") is None


def test_prefix_reader_gives_prefix_then_rest() -> None:
    """Bytes that were taken off come first, and once."""
    reader = PrefixReader(b"abc", io.BytesIO(b"def"))
    assert [reader.read(2) for _ in range(4)] == [b"ab", b"c", b"de", b"f"]
