"""What the use cases on volumes answer with; values only."""

__all__ = [
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

from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord


class VolumeState(StrEnum):
    """What a volume can be used for right now."""

    ACTIVE = "active"
    """Mounted."""
    INACTIVE = "inactive"
    """Complete and not mounted."""
    CORRUPT = "corrupt"
    """Lacks its record, its snapshot or its mount point; see the status's ``problem``."""


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """A container volume as it is found.

    Args:
        name: Its name.
        state: See :class:`VolumeState`.
        rootfs: Where it is, or would be, mounted.
        record: What it was made from; None when that cannot be read.
        problem: Why it is corrupt; None unless it is.
    """

    name: VolumeName
    state: VolumeState
    rootfs: Path
    record: VolumeRecord | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """A snapshot of a container volume.

    Args:
        volume: Whose.
        name: Unique within the volume.
        created: When it was taken, aware UTC.
        own_bytes: Allocated bytes of what was written between it and the one before.
    """

    volume: VolumeName
    name: str
    created: datetime
    own_bytes: int


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """What a volume takes.

    Args:
        own_bytes: Allocated bytes of its writable layer.
        shared_bytes: Allocated bytes of the image's layers below, which other volumes may share.
        inodes: Inodes of its writable layer.
        snapshot_bytes: Allocated bytes of layers that its snapshots froze.
    """

    own_bytes: int
    shared_bytes: int
    inodes: int
    snapshot_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ForeignEntry:
    """Something in the volumes directory that is no container volume; nobody touches it.

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
