"""Removes committed snapshots on which nothing stands.

containerd's own removal refuses a snapshot that once had a child which a collection took: the
collector forgets to strike the child off its parent's list (seen on 1.6.20, 1.7.24 and 2.1.9).
Only a collection removes such a snapshot, once nothing refers to it.
"""

__all__ = ["remove_committed"]

import logging

from cas.errors import InUseError, SnapshotNotFoundError
from cas.model.labels import GC_REF_SNAPSHOT, GC_ROOT
from cas.store.backing import Backing

_LOGGER = logging.getLogger(__name__)


def remove_committed(backing: Backing, name: str) -> bool:
    """Remove a snapshot of layers; the caller holds its chain's lock and no lease on it.

    Idempotent. Labels of image configs that named it are gone afterwards; unpacking sets them.

    Args:
        backing: The store.
        name: The snapshot.

    Returns:
        Whether it existed.

    Raises:
        InUseError: Another snapshot stands on it, or a lease holds it; it stays.
    """
    try:
        return backing.snapshots.remove(name)
    except InUseError:
        child = next(iter(backing.snapshots.iter_snapshots([f'parent=="{name}"'])), None)
        if child is not None:
            raise
    _LOGGER.info("snapshot with forgotten children left to the collection snapshot=%s", name)
    _unroot(backing, name)
    backing.leases.collect_garbage()
    return _require_gone(backing, name)


def _unroot(backing: Backing, name: str) -> None:
    label = f"{GC_REF_SNAPSHOT}.{backing.snapshotter}"
    for blob in list(backing.content.iter_blobs([f'labels."{label}"=="{name}"'])):
        backing.content.update_labels(blob.digest, {label: None})
    try:
        backing.snapshots.update_labels(name, {GC_ROOT: None})
    except SnapshotNotFoundError:
        return


def _require_gone(backing: Backing, name: str) -> bool:
    try:
        backing.snapshots.stat(name)
    except SnapshotNotFoundError:
        return True
    raise InUseError(
        f"snapshot {name} has no children but something still holds it, such as a lease; end what "
        "runs and try again",
        snapshot=name,
    )
