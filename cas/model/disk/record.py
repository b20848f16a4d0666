"""What a disk volume is asked to be, and what it remembers about its making."""

__all__ = ["FORMAT_VERSION", "DiskOrigin", "DiskRecord", "DiskRequest"]

from dataclasses import dataclass
from datetime import datetime

from cas.errors import UsageError
from cas.model.digest import Digest
from cas.model.disk.format import GROWABLE, DiskFormat
from cas.model.volume_name import VolumeName

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class DiskRequest:
    """A disk volume that is to be.

    Args:
        source: Reference of the image, or digest of a blob that is a disk image; None for a blank
            disk.
        size: Bytes that the disk must at least have; None for those of the image.
        format: That the volume must have; None for that of the image, and raw for a blank disk.
        read_only: Nobody shall write to it.
        clear: Outside the vault.

    Raises:
        UsageError: A blank disk without a size or of a format that is not made, or a size that is
            none.
    """

    source: str | None
    size: int | None = None
    format: DiskFormat | None = None
    read_only: bool = False
    clear: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and self.size <= 0:
            raise UsageError(f"a disk of {self.size} bytes is none", size=self.size)
        if self.source is not None:
            return
        if self.size is None:
            raise UsageError("a blank disk needs a size")
        if self.format is not None and self.format not in GROWABLE:
            raise UsageError(
                f"blank disks are made in raw and qcow2, not in {self.format}", format=self.format
            )


@dataclass(frozen=True, slots=True)
class DiskOrigin:
    """The image of a disk volume.

    Args:
        image: The reference that it was prepared from, canonical; the digest for a bare blob.
        manifest_digest: The manifest that was chosen, or that a bare blob would be wrapped in.
        blob_digest: The blob that the disk is, or is in.
    """

    image: str
    manifest_digest: Digest
    blob_digest: Digest


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """A disk volume as it was made. The volume needs nothing of its origin any more.

    Args:
        name: Its name.
        origin: None for a blank disk.
        format: That it has.
        size: Bytes that were asked for; None if nothing was asked.
        read_only: Made for reading.
        created: Aware UTC.
    """

    name: VolumeName
    origin: DiskOrigin | None
    format: DiskFormat
    size: int | None
    read_only: bool
    created: datetime
