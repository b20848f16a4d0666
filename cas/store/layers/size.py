"""How many bytes a layer will unpack to, guessed from its ends before it is unpacked.

A guess is for reserving room, never for deciding whether a layer is acceptable: the numbers in a
compressed file are its author's claims.
"""

__all__ = ["HEAD_BYTES", "TAIL_BYTES", "estimate_layer", "estimate_unpacked_bytes"]

import struct

from cas.model.descriptor import Descriptor
from cas.store.ports import BlobReader

HEAD_BYTES = 18
"""Bytes of a layer's beginning that the estimate wants: the longest zstd frame header."""
TAIL_BYTES = 4
"""Bytes of a layer's end that the estimate wants: the length field of gzip."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TYPICAL_EXPANSION = 3
_BELIEVABLE_EXPANSION = 20
_SHORTEST_ZSTD = 5
_SHORT_FIELD = 2
_SHORT_FIELD_OFFSET = 256


def estimate_layer(content: BlobReader, blob: Descriptor) -> int:
    """Guess the uncompressed size of a layer in the store; see :func:`estimate_unpacked_bytes`.

    Raises:
        BlobNotFoundError: It is not there.
        UnavailableError: containerd does not answer.
    """
    head = b"".join(content.read(blob.digest, size=min(HEAD_BYTES, blob.size)))
    offset = max(0, blob.size - TAIL_BYTES)
    tail = b"".join(content.read(blob.digest, offset=offset, size=blob.size - offset))
    return estimate_unpacked_bytes(head, tail, blob.size)


def estimate_unpacked_bytes(head: bytes, tail: bytes, size: int) -> int:
    """Guess the uncompressed size of a layer.

    Args:
        head: Its first :data:`HEAD_BYTES` bytes, or all there are.
        tail: Its last :data:`TAIL_BYTES` bytes, or all there are.
        size: Its size in bytes.

    Returns:
        Bytes: never fewer than ``size`` and never more than twenty times as many, so that a lie
        neither hides a need nor refuses a layer that would fit.
    """
    if head.startswith(_GZIP_MAGIC) and len(tail) == TAIL_BYTES:
        claimed = int(struct.unpack("<I", tail)[0])
    elif head.startswith(_ZSTD_MAGIC):
        claimed = _zstd_content_size(head) or size * _TYPICAL_EXPANSION
    else:
        claimed = size
    return max(size, min(claimed, size * _BELIEVABLE_EXPANSION))


def _zstd_content_size(head: bytes) -> int | None:
    """Read the optional content size of a zstd frame header (RFC 8878, section 3.1.1.1)."""
    if len(head) < _SHORTEST_ZSTD:
        return None
    descriptor = head[4]
    single_segment = bool(descriptor & 0x20)
    width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 0x03]
    field = head[start : start + width]
    if width == 0 or len(field) != width:
        return None
    return int.from_bytes(field, "little") + (_SHORT_FIELD_OFFSET if width == _SHORT_FIELD else 0)
