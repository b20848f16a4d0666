"""The header of a VMDK image that is one file: hosted sparse or stream-optimised.

Source: VMware, Virtual Disk Format 5.0; how qemu reads it, block/vmdk.c.
"""

__all__ = ["VMDK_MAGIC", "vmdk_size"]

import re
import struct
from collections.abc import Callable

from cas.errors import DiskFormatError, DiskImageError

VMDK_MAGIC = b"KDMV"

_HEADER = struct.Struct("<4sIIQQQQIQQQ")
_SECTOR = 512
_FOOTER_OFFSET = 1024
_AT_END = 2**64 - 1
"""Offset of the grain directory of a stream-optimised image, whose footer has the real one."""
_DESCRIPTOR_BYTES = 64 * 1024
_WHOLE = frozenset({b"monolithicsparse", b"streamoptimized"})
_NO_PARENT = b"ffffffff"
_ENTRY = re.compile(rb'^[ \t]*(\w+)[ \t]*=[ \t]*"?([^"\r\n]*)"?[ \t]*\r?$', re.MULTILINE)


def vmdk_size(read_at: Callable[[int, int], bytes], file_size: int) -> int:
    """Check header and descriptor and give the bytes of the disk.

    Raises:
        DiskFormatError: A kind of VMDK that is not one whole file.
        DiskImageError: A parent image, numbers that cannot be, or a file that ends too early.
    """
    fields = _header(read_at(0, _HEADER.size))
    capacity, descriptor_at, descriptor_sectors = fields[3], fields[5], fields[6]
    _check_descriptor(read_at, descriptor_at * _SECTOR, descriptor_sectors * _SECTOR)
    if fields[10] * _SECTOR > file_size:
        raise DiskImageError("it ends before its data begin: it is cut off or forged")
    if fields[9] == _AT_END:
        capacity = _header(read_at(max(0, file_size - _FOOTER_OFFSET), _HEADER.size))[3]
    if not 0 < capacity < 2**63 // _SECTOR:
        raise DiskImageError(f"it claims to be a disk of {capacity} sectors")
    return int(capacity * _SECTOR)


def _header(raw: bytes) -> tuple[int, ...]:
    if len(raw) < _HEADER.size or not raw.startswith(VMDK_MAGIC):
        raise DiskImageError("its header or footer is cut off")
    return _HEADER.unpack(raw)


def _check_descriptor(read_at: Callable[[int, int], bytes], offset: int, size: int) -> None:
    if not 0 < size <= _DESCRIPTOR_BYTES:
        raise DiskImageError(f"its descriptor has {size} bytes")
    text = read_at(offset, size).rstrip(b"\0")
    entries = {key.lower(): value.strip().lower() for key, value in _ENTRY.findall(text)}
    kind = entries.get(b"createtype", b"")
    if kind not in _WHOLE:
        raise DiskFormatError(
            f"it is a VMDK of type {kind[:40].decode(errors='replace')!r}; one whole file of type "
            "monolithicSparse or streamOptimized can be used"
        )
    if entries.get(b"parentcid", _NO_PARENT) != _NO_PARENT or b"parentfilenamehint" in entries:
        raise DiskImageError(
            "it refers to a parent image, and an image must be whole in itself; flatten it with "
            "'qemu-img convert'"
        )
