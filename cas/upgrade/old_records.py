"""What the containerd of an old store tells of it, asked once before anything is merged."""

__all__ = ["OldRecords"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cas.containerd.client import Containerd
from cas.model.records import ImageRecord, SnapshotInfo


@dataclass(frozen=True, slots=True)
class OldRecords:
    """The metadata of an old store, to which nothing happens while it is merged.

    Args:
        images: Its images.
        snapshots: Its snapshots.
        namespaces: Its namespaces.
    """

    images: Sequence[ImageRecord]
    snapshots: Sequence[SnapshotInfo]
    namespaces: frozenset[str]

    @classmethod
    def read(cls, old: Containerd) -> Self:
        """Ask for all of it.

        Raises:
            CasError: The store cannot be read, for example because its database is damaged.
        """
        return cls(
            images=tuple(old.images.iter_images()),
            snapshots=tuple(old.snapshots.iter_snapshots()),
            namespaces=frozenset(old.namespaces.iter_namespaces()),
        )
