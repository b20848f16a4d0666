"""Guessing how large a layer becomes."""

import gzip
import os

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from cas.store.layers.size import HEAD_BYTES, TAIL_BYTES, estimate_unpacked_bytes


def _estimate(data: bytes) -> int:
    return estimate_unpacked_bytes(data[:HEAD_BYTES], data[-TAIL_BYTES:], len(data))


@pytest.mark.parametrize("size", [1000, 100_000, 1_000_000])
def test_estimate_of_gzip_is_the_claimed_size(size: int) -> None:
    """gzip says at its end what comes out."""
    content = os.urandom(size // 2) + bytes(size - size // 2)
    assert _estimate(gzip.compress(content)) == size


@pytest.mark.parametrize("size", [200, 1000, 70_000, 1_000_000])
def test_estimate_of_zstd_is_the_claimed_size(size: int) -> None:
    """zstd may say in its header what comes out; every width of that field is read."""
    content = os.urandom(size // 2) + bytes(size - size // 2)
    assert _estimate(zstd.compress(content)) == size


def test_estimate_of_zstd_stream_without_size_assumes_typical_expansion() -> None:
    """A stream of unknown length has no size in its header."""
    compressor = zstd.ZstdCompressor()
    data = compressor.compress(os.urandom(5000)) + compressor.flush()
    assert _estimate(data) == 3 * len(data)


def test_estimate_of_plain_tar_is_its_size() -> None:
    """What is not compressed does not grow."""
    assert _estimate(b"x" * 12345) == 12345


def test_estimate_of_bomb_stays_believable() -> None:
    """A claim of a thousand times the size does not reserve that much."""
    data = gzip.compress(bytes(10_000_000))
    assert _estimate(data) == 20 * len(data)


@given(st.binary(max_size=HEAD_BYTES), st.binary(max_size=TAIL_BYTES), st.integers(0, 2**40))
def test_estimate_of_anything_stays_between_size_and_twenty_times_size(
    head: bytes, tail: bytes, size: int
) -> None:
    """No input makes the estimate fail or leave its bounds."""
    for start in (b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"):
        assert size <= estimate_unpacked_bytes(start + head, tail, size) <= 20 * size
