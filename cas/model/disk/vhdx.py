"""The header of a VHDX image: where its metadata are, and what they say.

Source: [MS-VHDX] Virtual Hard Disk v2 (VHDX) File Format.
"""

__all__ = ["VHDX_MAGIC", "vhdx_size"]

import struct
import uuid
from collections.abc import Callable, Iterator

from cas.errors import DiskImageError

VHDX_MAGIC = b"vhdxfile"

_REGIONS_AT = 192 * 1024
_TABLE_BYTES = 64 * 1024
_REGION_HEADER = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_METADATA_HEADER = struct.Struct("<8sHH20x")
_ITEM = struct.Struct("<16sIII4x")
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_HAS_PARENT = 1 << 1
_LONGEST_ITEM = 8


def vhdx_size(read_at: Callable[[int, int], bytes], _file_size: int) -> int:
    """Check the metadata and give the bytes of the disk.

    Raises:
        DiskImageError: A parent image, numbers that cannot be, or a file that ends too early.
    """
    metadata_at = _metadata_offset(read_at(_REGIONS_AT, _TABLE_BYTES))
    items = dict(_items(read_at(metadata_at, _TABLE_BYTES)))
    parameters = _item(read_at, metadata_at, items.get(_PARAMETERS))
    if parameters >> 32 & _HAS_PARENT:
        raise DiskImageError(
            "it refers to a parent image, and an image must be whole in itself; flatten it with "
            "'qemu-img convert'"
        )
    size = _item(read_at, metadata_at, items.get(_DISK_SIZE))
    if not 0 < size < 2**63:
        raise DiskImageError(f"it claims to be a disk of {size} bytes")
    return size


def _metadata_offset(table: bytes) -> int:
    if len(table) < _REGION_HEADER.size or not table.startswith(b"regi"):
        raise _cut_off("table of regions")
    count = _REGION_HEADER.unpack_from(table)[2]
    end = min(len(table), _REGION_HEADER.size + count * _REGION.size)
    for start in range(_REGION_HEADER.size, end - _REGION.size + 1, _REGION.size):
        name, offset, _, _ = _REGION.unpack_from(table, start)
        if uuid.UUID(bytes_le=name) == _METADATA:
            return int(offset)
    raise _cut_off("metadata region")


def _items(table: bytes) -> Iterator[tuple[uuid.UUID, tuple[int, int]]]:
    if len(table) < _METADATA_HEADER.size or not table.startswith(b"metadata"):
        raise _cut_off("metadata")
    count = _METADATA_HEADER.unpack_from(table)[2]
    end = min(len(table), _METADATA_HEADER.size + count * _ITEM.size)
    for start in range(_METADATA_HEADER.size, end - _ITEM.size + 1, _ITEM.size):
        name, offset, length, _ = _ITEM.unpack_from(table, start)
        yield uuid.UUID(bytes_le=name), (offset, length)


def _item(
    read_at: Callable[[int, int], bytes], metadata_at: int, place: tuple[int, int] | None
) -> int:
    """Give the number that an item holds, little-endian."""
    offset, length = place or (0, 0)
    raw = read_at(metadata_at + offset, _LONGEST_ITEM)
    if length != _LONGEST_ITEM or len(raw) < _LONGEST_ITEM:
        raise _cut_off("size or parameters")
    return int.from_bytes(raw, "little")


def _cut_off(what: str) -> DiskImageError:
    return DiskImageError(f"the {what} of the VHDX image cannot be found: it is cut off or forged")
