"""Formats of disk images, and who claims them."""

__all__ = ["GROWABLE", "DiskFormat", "claimed_format", "is_disk_layer"]

from enum import StrEnum

from cas.errors import DiskFormatError

_DISK_LAYER = "application/vnd.lfedge.disk.layer.v1"


class DiskFormat(StrEnum):
    """A format that a disk volume can have; the value is qemu's name but for ISO."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"
    ISO = "iso"
    """ISO 9660, which qemu treats as raw."""

    @property
    def driver(self) -> str:
        """What qemu calls it."""
        return DiskFormat.RAW.value if self is DiskFormat.ISO else self.value


GROWABLE = frozenset({DiskFormat.RAW, DiskFormat.QCOW2})
"""Formats that qemu-img can make larger in place, and that blank volumes and conversions have."""


def is_disk_layer(media_type: str) -> bool:
    """Whether a layer of this media type is a disk image and no tar."""
    return media_type.partition("+")[0] == _DISK_LAYER


def claimed_format(media_type: str) -> DiskFormat | None:
    """Tell which format a media type claims; None if it claims none.

    ``+raw`` claims none: EVE gives it to every disk image, whatever its format.

    Raises:
        DiskFormatError: It claims a format that disk volumes do not have.

    Source: lf-edge/edge-containers, media types of disks.
    """
    suffix = media_type.partition("+")[2]
    if not is_disk_layer(media_type) or suffix in ("", DiskFormat.RAW):
        return None
    try:
        return DiskFormat(suffix)
    except ValueError as error:
        raise DiskFormatError(
            f"media type {media_type[:200]!r} claims a disk format that no volume can have; "
            f"convert the image to {_listed()}",
            media_type=media_type[:200],
        ) from error


def _listed() -> str:
    return ", ".join(each.value for each in DiskFormat)
