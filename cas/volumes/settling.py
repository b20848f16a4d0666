"""Brings containerd to what a volume's record says.

The record of an operation on snapshots is written first: it is the moment at which the operation
has happened. What is missing in containerd then is made, and what is too many removed, here: by
the operation itself, or after a kill by whoever comes next. Every step may be repeated.
"""

__all__ = ["Settling", "sync_new"]

import logging
from collections.abc import Sequence
from pathlib import Path

from cas.errors import CorruptVolumeError, SnapshotNotFoundError
from cas.fsops.durable import publish, sync_directory, sync_file_system
from cas.model.labels import DURABLE
from cas.model.records import Mount
from cas.model.volume_layers import FrozenLayer, VolumeHistory
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.layers.durability import upper_directory
from cas.store.leasing import Lease, Leasing
from cas.volumes.own_snapshots import iter_own, labels_of, remove_all_but

_LOGGER = logging.getLogger(__name__)

_MOVING = "/moving"
"""Added to the key of a layer while its files come to it."""


class Settling:
    """Makes and removes snapshots of volumes until they are as recorded.

    Callers hold the volume's lock.

    Args:
        backing: The store.
        leasing: Makes leases.
    """

    def __init__(self, backing: Backing, leasing: Leasing) -> None:
        self._backing = backing
        self._leasing = leasing

    def require(self, record: VolumeRecord) -> None:
        """See to it that the volume can be used; cheap when it can.

        Raises:
            CorruptVolumeError: A snapshot is missing and cannot be made.
        """
        if record.history is None:
            return
        if record.history.moved_from is not None:
            # The key may be there and the files not yet.
            self.settle(record)
            return
        try:
            self._backing.snapshots.stat(record.snapshot_key)
        except SnapshotNotFoundError:
            self.settle(record)

    def settle(self, record: VolumeRecord) -> bool:
        """Make what is missing, then remove what the record does not name; idempotent.

        Returns:
            Whether anything was to be done.

        Raises:
            CorruptVolumeError: A snapshot is missing and there is nothing to make it from.
            NoSpaceError: No room.
        """
        made = self.make(record)
        removed = remove_all_but(self._backing, record.name, record.snapshot_keys)
        return made or bool(removed)

    def make(self, record: VolumeRecord) -> bool:
        """Make what the record names and is missing; as :meth:`settle`."""
        history = record.history
        if history is None:
            return False
        present = {info.name for info in iter_own(self._backing, record.name)}
        missing = [layer for layer in history.layers if layer.key not in present]
        unfinished = record.snapshot_key not in present or history.moved_from is not None
        if missing or unfinished:
            with self._leasing.hold("snapshot") as lease:
                for layer in missing:
                    self._make_frozen(record, layer, lease)
                if unfinished:
                    _require_makeable(record, history, present)
                    self._make_writable(record, history, lease)
        return bool(missing) or unfinished

    def _make_frozen(self, record: VolumeRecord, layer: FrozenLayer, lease: Lease) -> None:
        source = layer.frozen_from
        if layer.moved_from is not None:
            source = f"{layer.key}{_MOVING}"
            upper = self._prepared(record, source, layer.parent, lease)
            _take_files(record, upper, layer.moved_from)
        else:
            upper = upper_directory(self._mounts(record, source))
        if upper is not None:
            # containerd syncs its record of the layer, not the layer's files.
            sync_file_system(upper)
        labels = labels_of(self._backing, record) | {
            DURABLE: self._backing.clock().isoformat(timespec="seconds")
        }
        self._backing.snapshots.commit(layer.key, source, lease.id, labels)
        _LOGGER.info("layer frozen volume=%s key=%s", record.name, layer.key)

    def _make_writable(self, record: VolumeRecord, history: VolumeHistory, lease: Lease) -> None:
        upper = self._prepared(record, record.snapshot_key, history.parent, lease)
        if history.moved_from is not None:
            _take_files(record, upper, history.moved_from)

    def _prepared(self, record: VolumeRecord, key: str, parent: str, lease: Lease) -> Path | None:
        """Make a writable snapshot unless it is there, its directories durable."""
        snapshots = self._backing.snapshots
        try:
            mounts = snapshots.mounts(key)
        except SnapshotNotFoundError:
            try:
                mounts = snapshots.prepare(key, parent, lease.id, labels_of(self._backing, record))
            except SnapshotNotFoundError as error:
                raise _lost(record, parent) from error
        sync_new(mounts)
        return upper_directory(mounts)

    def _mounts(self, record: VolumeRecord, key: str) -> list[Mount]:
        try:
            return self._backing.snapshots.mounts(key)
        except SnapshotNotFoundError as error:
            raise _lost(record, key) from error


def sync_new(mounts: Sequence[Mount]) -> None:
    """Make a new snapshot's directories durable; containerd syncs only its record of them."""
    upper = upper_directory(mounts)
    if upper is None:
        return
    work = mounts[0].option("workdir")
    for directory in (upper, *([Path(work)] if work else []), upper.parent, upper.parent.parent):
        sync_directory(directory)


def _take_files(record: VolumeRecord, upper: Path | None, number: int) -> None:
    """Let a layer's directory take the place of the empty one of a new layer; once."""
    if upper is None:
        raise CorruptVolumeError(
            f"files of volume {record.name} cannot be reached; run this where containerd's root "
            "directory is visible under the same path",
            name=record.name,
        )
    source = upper.parent.parent / str(number) / upper.name
    if source.is_dir():
        publish(source, upper, replace=True)


def _require_makeable(record: VolumeRecord, history: VolumeHistory, present: set[str]) -> None:
    """Refuse an empty layer in the place of one that somebody wrote into."""
    missing = record.snapshot_key not in present
    if missing and not history.unused and history.moved_from is None:
        raise _lost(record, record.snapshot_key)


def _lost(record: VolumeRecord, key: str) -> CorruptVolumeError:
    return CorruptVolumeError(
        f"snapshot {key!r} of volume {record.name} is gone and its data with it; roll back to "
        "an earlier snapshot of the volume, or remove it and prepare it again",
        name=record.name,
        snapshot=key,
    )
