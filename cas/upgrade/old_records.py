"""What the containerd of an old store tells of it, asked once before anything is merged."""

__all__ = ["OldRecords"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cas.containerd.client import Containerd
from cas.model.digest import Digest
from cas.model.records import ImageRecord, SnapshotInfo

_OF_COLLECTOR = "containerd.io/gc."


@dataclass(frozen=True, slots=True)
class OldRecords:
    """The metadata of an old store, to which nothing happens while it is merged.

    Args:
        images: Its images.
        snapshots: Its snapshots.
        namespaces: Its namespaces.
        labels: Of its blobs, as far as they have any, but what containerd collects by.
    """

    images: Sequence[ImageRecord]
    snapshots: Sequence[SnapshotInfo]
    namespaces: frozenset[str]
    labels: Mapping[Digest, Mapping[str, str]]

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
            labels={
                info.digest: labels
                for info in old.content.iter_blobs()
                if (labels := _to_bring(info.labels))
            },
        )


def _to_bring(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in labels.items() if not key.startswith(_OF_COLLECTOR)}
