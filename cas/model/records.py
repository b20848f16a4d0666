"""What containerd remembers, as values of ours."""

__all__ = [
    "BlobInfo",
    "ImageRecord",
    "IngestStatus",
    "LeaseID",
    "LeaseInfo",
    "LeaseResource",
    "Mount",
    "PulledImage",
    "SnapshotInfo",
    "SnapshotKind",
    "SnapshotUsage",
]

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest

LeaseID = NewType("LeaseID", str)


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A committed blob. ``size`` in bytes, times aware UTC."""

    digest: Digest
    size: int
    created: datetime
    updated: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """A write that has not been committed. ``offset`` and ``total`` in bytes, 0 if unknown."""

    ref: str
    offset: int
    total: int
    started: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A name that points to a manifest or index."""

    name: str
    target: Descriptor
    labels: Mapping[str, str]
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease as containerd lists it."""

    id: LeaseID
    created: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LeaseResource:
    """Something a lease holds: type ``content``, ``ingests`` or ``snapshots/<snapshotter>``."""

    type: str
    id: str


class SnapshotKind(StrEnum):
    """Life stage of a snapshot."""

    VIEW = "view"
    ACTIVE = "active"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot. ``name`` is the key while it is active; ``parent`` is empty for a base."""

    name: str
    parent: str
    kind: SnapshotKind
    labels: Mapping[str, str]
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """Allocated bytes and inodes of one snapshot, parents not counted."""

    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount as the snapshotter describes it; nothing is mounted yet."""

    type: str
    source: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of the option ``name=...``, or None."""
        prefix = f"{name}="
        for option in self.options:
            if option.startswith(prefix):
                return option[len(prefix) :]
        return None


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that is in the store.

    Args:
        record: Its name and what that points to.
        size: Bytes of its blobs for the platform.
        downloaded: Of these, how many came over the network.
        signed_by: The policy's name of the key that signed it; empty if none was asked for.
    """

    record: ImageRecord
    size: int
    downloaded: int
    signed_by: str
