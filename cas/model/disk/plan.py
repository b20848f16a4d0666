"""From what an image is and what is asked for to what has to be done; a pure rule."""

__all__ = ["DiskPlan", "plan_disk", "whole_sectors"]

from dataclasses import dataclass

from cas.errors import DiskFormatError, VolumeSizeError
from cas.model.disk.format import GROWABLE, DiskFormat
from cas.model.disk.header import DiskHeader
from cas.model.disk.record import DiskRequest

_SECTOR = 512


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What the volume will be.

    Args:
        format: Of the volume.
        size: Bytes of its disk.
        converts: The image has to be converted; else it is copied.
        grows: The disk has to be made larger then.
    """

    format: DiskFormat
    size: int
    converts: bool
    grows: bool


def plan_disk(header: DiskHeader, request: DiskRequest) -> DiskPlan:
    """Decide. A disk is never made smaller, and an ISO never larger.

    Raises:
        VolumeSizeError: The image is larger than what is asked for, or its format cannot grow.
        DiskFormatError: An ISO would have to be converted, or something to an ISO.
    """
    target = request.format or header.format
    if (header.format is DiskFormat.ISO) != (target is DiskFormat.ISO) and not (
        header.format is DiskFormat.ISO and target is DiskFormat.RAW
    ):
        raise DiskFormatError(
            f"an image that is {header.format} cannot become {target}: only disks are converted",
            expected=target,
            actual=header.format,
        )
    asked = whole_sectors(request.size or 0)
    if request.size is not None and asked < header.virtual_size:
        raise VolumeSizeError(
            f"the image holds a disk of {header.virtual_size} bytes, more than the {request.size} "
            "asked for, and a disk is never made smaller; ask for more, or leave the size out",
            expected=request.size,
            actual=header.virtual_size,
        )
    if header.format is DiskFormat.ISO:
        return DiskPlan(target, header.virtual_size, converts=False, grows=False)
    grows = asked > header.virtual_size
    if grows and target not in GROWABLE:
        raise VolumeSizeError(
            f"a disk in {target} cannot grow from {header.virtual_size} to {request.size} bytes; "
            "have it converted to raw or qcow2",
            expected=request.size,
            actual=header.virtual_size,
        )
    size = max(asked, header.virtual_size)
    return DiskPlan(target, size, converts=target is not header.format, grows=grows)


def whole_sectors(size: int) -> int:
    """Round bytes up to what a disk can have."""
    return -(-size // _SECTOR) * _SECTOR
