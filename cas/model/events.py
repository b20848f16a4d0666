"""What happens in a store, told to whoever listens."""

__all__ = ["Event", "EventKind"]

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    IMAGE_CREATED = "image-created"
    IMAGE_UPDATED = "image-updated"
    """The name points elsewhere, or its labels changed, which every use does."""
    IMAGE_REMOVED = "image-removed"
    BLOB_REMOVED = "blob-removed"
    """By its digest, or by a prune. What containerd collects on its own is not told."""
    VOLUME_PREPARED = "volume-prepared"
    VOLUME_ACTIVATED = "volume-activated"
    VOLUME_DEACTIVATED = "volume-deactivated"
    VOLUME_REMOVED = "volume-removed"
    VOLUME_SNAPSHOT_CREATED = "volume-snapshot-created"
    """The object is the volume, here and below; its snapshots can be listed."""
    VOLUME_ROLLED_BACK = "volume-rolled-back"
    VOLUME_SNAPSHOT_REMOVED = "volume-snapshot-removed"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; a hint, so look at the object before acting on it.

    Args:
        time: When, by the clock of containerd's machine, aware UTC.
        kind: What.
        object: Digest, reference or volume name.
    """

    time: datetime
    kind: EventKind
    object: str
