"""What a disk image is, told by its content; reads a few bounded pieces and nothing else.

The content comes from outside: whatever a header says is a claim of its author. Refused is every
image that is not whole in itself, since whoever opens it would open what it names: backing files,
external data files, parents, extents.
"""

__all__ = ["DiskHeader", "ReadAt", "read_disk_header"]

from collections.abc import Callable
from dataclasses import dataclass

from cas.errors import DiskFormatError, DiskImageError, LimitExceededError
from cas.model.disk.format import DiskFormat
from cas.model.disk.qcow2 import QCOW2_MAGIC, qcow2_size
from cas.model.disk.vhdx import VHDX_MAGIC, vhdx_size
from cas.model.disk.vmdk import VMDK_MAGIC, vmdk_size
from cas.model.limits import Limits

ReadAt = Callable[[int, int], bytes]
"""Gives at most so many (second) bytes from an offset (first), fewer only at the end."""

_SECTOR = 512
_ISO_SIGNATURE = (32769, b"CD001")
_VHD = b"conectix"
_FOREIGN = (
    (b"# Disk DescriptorFile", "a VMDK descriptor, whose data are in other files"),
    (b"COWD", "a VMDK of version 3"),
    (b"QED\0", "a QED image"),
    (b"<<< ", "a VDI image"),
    (b"WithoutFreeSpace", "a Parallels image"),
    (b"WithouFreSpacExt", "a Parallels image"),
    (_VHD, "a VHD image"),
)

_SIZES: tuple[tuple[bytes, DiskFormat, Callable[[ReadAt, int], int]], ...] = (
    (VMDK_MAGIC, DiskFormat.VMDK, vmdk_size),
    (VHDX_MAGIC, DiskFormat.VHDX, vhdx_size),
)


@dataclass(frozen=True, slots=True)
class DiskHeader:
    """A disk image as its content tells it.

    Args:
        format: What it is.
        virtual_size: Bytes of the disk in it.
    """

    format: DiskFormat
    virtual_size: int


def read_disk_header(
    read_at: ReadAt,
    size: int,
    limits: Limits,
    *,
    claimed: DiskFormat | None = None,
    what: str = "the disk image",
    own_snapshots: int = 0,
) -> DiskHeader:
    """Recognise a disk image and check what can be checked without reading it all.

    Args:
        read_at: Reads the file.
        size: Bytes of the file.
        limits: How large the disk may be.
        claimed: What the file is said to be; None for nothing.
        what: What messages call it.
        own_snapshots: How many a qcow2 may have inside beside those that an image may.

    Raises:
        DiskFormatError: It is something else than was claimed, or of a format that no volume has.
        DiskImageError: Its header is not valid, or refers to something outside the file.
        LimitExceededError: The disk in it is larger than allowed.
    """
    try:
        header = _recognised(read_at, size, own_snapshots)
    except (DiskFormatError, DiskImageError) as error:
        raise type(error)(f"{what} cannot be used: {error.message}", **error.details) from error
    if claimed not in (None, header.format):
        raise DiskFormatError(
            f"{what} is said to be {claimed}, and its content is {header.format}; have whoever "
            "published it put that right",
            expected=claimed,
            actual=header.format,
        )
    if header.virtual_size == 0:
        raise DiskImageError(f"{what} holds a disk of no bytes")
    if header.virtual_size > limits.disk_bytes:
        raise LimitExceededError(
            f"{what} holds a disk of {header.virtual_size} bytes, more than the "
            f"{limits.disk_bytes} that a disk may have",
            limit=limits.disk_bytes,
            actual=header.virtual_size,
        )
    return header


def _recognised(read_at: ReadAt, size: int, own_snapshots: int) -> DiskHeader:
    if size == 0:
        raise DiskImageError("it is empty")
    head = read_at(0, _SECTOR)
    if head.startswith(QCOW2_MAGIC):
        found = qcow2_size(read_at, size, own_snapshots=own_snapshots)
        return DiskHeader(DiskFormat.QCOW2, found)
    for magic, disk_format, virtual_size in _SIZES:
        if head.startswith(magic):
            return DiskHeader(disk_format, virtual_size(read_at, size))
    _refuse_foreign(head, read_at(max(0, size - _SECTOR), _SECTOR))
    offset, signature = _ISO_SIGNATURE
    if read_at(offset, len(signature)) == signature:
        return DiskHeader(DiskFormat.ISO, size)
    return DiskHeader(DiskFormat.RAW, size)


def _refuse_foreign(head: bytes, tail: bytes) -> None:
    for magic, name in _FOREIGN:
        if head.startswith(magic) or (magic == _VHD and tail.startswith(magic)):
            raise DiskFormatError(f"it is {name}; convert it to raw or qcow2 first")
