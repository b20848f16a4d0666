"""The snapshots in containerd that carry a volume's label."""

__all__ = ["iter_own", "labels_of", "remove_all_but"]

from collections.abc import Collection, Iterator

from cas.model.labels import GC_ROOT, VOLUME, VOLUMES_DIRECTORY
from cas.model.records import SnapshotInfo
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing


def labels_of(backing: Backing, record: VolumeRecord) -> dict[str, str]:
    """Give the labels of a snapshot of the volume: whose it is, and that no collection takes it."""
    return {
        GC_ROOT: record.created.isoformat(timespec="seconds"),
        VOLUME: str(record.name),
        VOLUMES_DIRECTORY: str(backing.layout.volumes),
    }


def iter_own(backing: Backing, name: VolumeName) -> Iterator[SnapshotInfo]:
    """Stream the volume's snapshots, in no order; also those labelled under another path to it."""
    return backing.snapshots.iter_snapshots([f'labels."{VOLUME}"=="{name}"'])


def remove_all_but(backing: Backing, name: VolumeName, keep: Collection[str]) -> list[str]:
    """Remove the volume's snapshots but for those in ``keep``; idempotent.

    Space comes back with the next collection. The caller holds the volume's lock.

    Args:
        backing: The store.
        name: Of the volume.
        keep: Keys; what they stand on is kept by containerd too.

    Returns:
        The keys that are gone, children first.

    Raises:
        InUseError: Something else stands on one.
    """
    where = str(backing.layout.volumes)
    left = {
        info.name: info.parent
        for info in iter_own(backing, name)
        if info.name not in keep and info.labels.get(VOLUMES_DIRECTORY) == where
    }
    removed: list[str] = []
    while left:
        parents = set(left.values())
        leaves = [key for key in left if key not in parents]
        for key in leaves:
            backing.snapshots.remove(key)
            del left[key]
        removed += leaves
    return removed
