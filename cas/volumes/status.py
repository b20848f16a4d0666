"""What the use cases on volumes answer with; values only."""

__all__ = [
    "DiskStatus",
    "ForeignEntry",
    "Recovered",
    "RecoveryAction",
    "VolumeSnapshot",
    "VolumeState",
    "VolumeStatus",
    "VolumeUsage",
]

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRecord
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord


class VolumeState(StrEnum):
    """What a volume can be used for right now."""

    ACTIVE = "active"
    """Mounted; a disk: held by a running virtual machine."""
    INACTIVE = "inactive"
    """Complete, and not mounted or held."""
    CORRUPT = "corrupt"
    """Lacks its record, its snapshot or its mount point, or is a disk of another format than its
    record says; see the status's ``problem``."""


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """What there is to know of a disk volume.

    Args:
        path: Its file.
        clear: Whether it is outside the vault.
        format: What it is.
        virtual_size: Bytes of the disk that a virtual machine sees.
        allocated: Bytes of the file system that its file takes.
        record: What it was made from; None for one that we did not make.
        snapshots: How many it has.
    """

    path: Path
    clear: bool
    format: DiskFormat
    virtual_size: int
    allocated: int
    record: DiskRecord | None
    snapshots: int = 0


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """A volume as it is found.

    Args:
        name: Its name.
        state: See :class:`VolumeState`.
        rootfs: Where it is, or would be, mounted; the file of a disk volume.
        record: What a container volume was made from; None when that cannot be read.
        problem: Why it is corrupt; None unless it is.
        disk: What there is to know of a disk volume; None for a container volume, and for a disk
            volume that is corrupt.
    """

    name: VolumeName
    state: VolumeState
    rootfs: Path
    record: VolumeRecord | None
    problem: str | None = None
    disk: DiskStatus | None = None


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """A snapshot of a volume.

    Args:
        volume: Whose.
        name: Unique within the volume.
        created: When it was taken, aware UTC.
        own_bytes: Allocated bytes of what was written between it and the one before; of a raw disk,
            those that only this snapshot holds.
    """

    volume: VolumeName
    name: str
    created: datetime
    own_bytes: int


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """What a volume takes.

    Args:
        own_bytes: Allocated bytes of its writable layer, or of its disk alone.
        shared_bytes: Allocated bytes of the image's layers below, which other volumes may share; of
            a disk, of blocks that it shares with its image or other disks.
        inodes: Inodes of its writable layer.
        snapshot_bytes: Allocated bytes of layers that its snapshots froze, or that only copies of
            a raw disk hold; the file of a qcow2 has its snapshots in it.
        users: Processes that have something of it open, by id and short name; 0 is the kernel.
    """

    own_bytes: int
    shared_bytes: int
    inodes: int
    snapshot_bytes: int = 0
    users: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignEntry:
    """Something in a directory of volumes that is no volume; nobody touches it.

    Args:
        path: Where it is.
        reason: What it seems to be.
    """

    path: Path
    reason: str


class RecoveryAction(StrEnum):
    """What recovery did about an object."""

    FINISHED_REMOVAL = "finished-removal"
    FINISHED_SNAPSHOT = "finished-snapshot"
    """A snapshot of a volume, a rollback, or the removal of a snapshot."""
    UNDID_PREPARATION = "undid-preparation"
    REMOVED_SNAPSHOT = "removed-snapshot"
    REMOVED_TEMPORARY = "removed-temporary"
    REPORTED_MOUNT = "reported-mount"
    SKIPPED = "skipped"
    """Somebody works on it, or it could not be put right; the next recovery looks again."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """One thing that recovery found.

    Args:
        action: What was done.
        object: Path, snapshot key or volume name.
        reason: Why, for people.
    """

    action: RecoveryAction
    object: str
    reason: str
