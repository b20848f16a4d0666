"""The header of a qcow2 image.

Source: QEMU, docs/interop/qcow2.txt.
"""

__all__ = ["QCOW2_MAGIC", "qcow2_size"]

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cas.errors import DiskFormatError, DiskImageError

QCOW2_MAGIC = b"QFI\xfb"

_VERSION_2 = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION_3 = struct.Struct(">QQQII")
_FIRST_VERSION = 2
_LAST_VERSION = 3
_CLUSTER_BITS = range(9, 22)
_ENTRY_BYTES = 8
_L1_BYTES = 32 * 1024 * 1024
"""Longest table of the first level that qemu reads."""
_SNAPSHOTS = 4096
"""What qemu-img tells of so many is still short enough to be heard."""
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
_EXTENDED_ENTRIES = 1 << 4
_KNOWN_FEATURES = 0b11111


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcounts_offset: int
    snapshots: int
    features: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        fields = _VERSION_2.unpack_from(raw)
        features = 0
        if fields[1] >= _LAST_VERSION:
            if len(raw) < _VERSION_2.size + _VERSION_3.size:
                raise DiskImageError("the qcow2 header is cut off")
            features = _VERSION_3.unpack_from(raw, _VERSION_2.size)[0]
        _, version, backing, backing_size, bits, size, encryption, l1, l1_at = fields[:9]
        return cls(
            version, backing, backing_size, bits, size, encryption, l1, l1_at, fields[9],
            fields[11], features,
        )  # fmt: skip


def qcow2_size(
    read_at: Callable[[int, int], bytes], file_size: int, *, own_snapshots: int = 0
) -> int:
    """Check the header and give the bytes of the disk.

    Args:
        read_at: Reads the file.
        file_size: Its bytes.
        own_snapshots: How many it may have beside those that an image may.

    Raises:
        DiskFormatError: A version, feature or encryption that volumes do not have.
        DiskImageError: A backing file or external data file, numbers that cannot be, or a file
            that ends too early.
    """
    raw = read_at(0, _VERSION_2.size + _VERSION_3.size)
    if len(raw) < _VERSION_2.size:
        raise DiskImageError("the qcow2 header is cut off")
    header = _Header.parse(raw)
    if not _FIRST_VERSION <= header.version <= _LAST_VERSION:
        raise DiskFormatError(
            f"it is qcow of version {header.version}; versions 2 and 3 can be used"
        )
    _refuse_references(header)
    _refuse_features(header)
    _check_numbers(header, file_size)
    _refuse_snapshots(header, _SNAPSHOTS + own_snapshots)
    return header.size


def _refuse_references(header: _Header) -> None:
    if header.backing_offset or header.backing_size:
        raise DiskImageError(
            "it refers to a backing file, and an image must be whole in itself; flatten it with "
            "'qemu-img convert'"
        )
    if header.features & _EXTERNAL_DATA:
        raise DiskImageError(
            "its data are in an external file, and an image must be whole in itself; flatten it "
            "with 'qemu-img convert'"
        )


def _refuse_features(header: _Header) -> None:
    if header.features & _CORRUPT:
        raise DiskImageError("it is marked as corrupt; repair it with 'qemu-img check'")
    unknown = header.features & ~_KNOWN_FEATURES
    if unknown:
        raise DiskFormatError(f"it has incompatible features {unknown:#x}, which nobody knows")
    if header.encryption:
        raise DiskFormatError("it is encrypted, so that nothing in it can be checked")


def _check_numbers(header: _Header, file_size: int) -> None:
    if header.cluster_bits not in _CLUSTER_BITS:
        raise DiskImageError(f"its clusters have 2**{header.cluster_bits} bytes")
    cluster = 1 << header.cluster_bits
    entry = _ENTRY_BYTES * (2 if header.features & _EXTENDED_ENTRIES else 1)
    per_table = cluster * (cluster // entry)
    table = header.l1_entries * _ENTRY_BYTES
    if table > _L1_BYTES or header.l1_entries * per_table < header.size:
        raise DiskImageError(
            f"its table has {header.l1_entries} entries, which do not fit a disk of "
            f"{header.size} bytes"
        )
    for name, offset, length in (
        ("table", header.l1_offset, table),
        ("reference count", header.refcounts_offset, cluster),
    ):
        if offset % cluster or offset + length > _rounded(file_size, cluster):
            raise DiskImageError(f"its {name} lies beyond its end: it is cut off or forged")


def _refuse_snapshots(header: _Header, most: int) -> None:
    if header.snapshots > most:
        raise DiskImageError(
            f"it has {header.snapshots} snapshots inside, more than the {most} that are looked at; "
            "remove some, or flatten it with 'qemu-img convert'"
        )


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
