"""Snapshots of container volumes: the use cases.

Taking one freezes the writable layer and puts a fresh one on it; rolling back puts a fresh one on
the snapshot. Neither takes time by what the volume holds. Each has happened when the volume's
record is replaced, see :mod:`cas.volumes.settling`.
"""

__all__ = ["VolumeSnapshot", "VolumeSnapshots"]

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cas.errors import (
    CasError,
    InUseError,
    SnapshotNotFoundError,
    VolumeConflictError,
    VolumeNotFoundError,
    VolumeSnapshotNotFoundError,
)
from cas.fsops.mounts import find_mount
from cas.model.records import SnapshotKind
from cas.model.volume_history import find_snapshot, forget, freeze, roll_back
from cas.model.volume_layers import FrozenLayer, check_snapshot_name
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel
from cas.volumes.activation import Activation
from cas.volumes.compaction import Compaction
from cas.volumes.own_snapshots import remove_all_but
from cas.volumes.records import read_record, replace_record
from cas.volumes.scan import stands
from cas.volumes.settling import Settling
from cas.volumes.status import VolumeSnapshot

_LOGGER = logging.getLogger(__name__)


class VolumeSnapshots:
    """Takes, lists, returns to and removes snapshots of one store's container volumes.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
    """

    def __init__(self, backing: Backing, locks: Locks, leasing: Leasing) -> None:
        self._backing = backing
        self._locks = locks
        self._activation = Activation(backing)
        self._sentinel = Sentinel(backing)
        self._settling = Settling(backing, leasing)
        self._compaction = Compaction(backing, leasing, self._settling)

    def create(self, name: VolumeName, snapshot: str, *, quiesced: bool = False) -> VolumeSnapshot:
        """Take a snapshot of a volume; idempotent: one of this name is left as it is.

        Takes the same time whatever the volume holds, but for data that is not on disk yet. After
        failure the volume is as before, or recovery completes the snapshot.

        Args:
            name: The volume.
            snapshot: Name of the snapshot, unique within the volume.
            quiesced: Nobody uses the volume although it is active: it is unmounted for the moment.

        Raises:
            VolumeNotFoundError: There is no such volume.
            VolumeConflictError: It is read-only, so there is nothing to freeze.
            InUseError: It is active and ``quiesced`` is not set, or it is in use all the same.
            InvalidNameError: ``snapshot`` is no name.
            LimitExceededError: It has too many snapshots.
            CorruptVolumeError: It is damaged.
            NoSpaceError: No room for the record.
        """
        check_snapshot_name(snapshot)
        self._backing.check_writable()
        with self._locks.volume(name):
            record = self._settled(name)
            try:
                return self._value(record, find_snapshot(record, snapshot))
            except VolumeSnapshotNotFoundError:
                pass
            _require_writable(record)
            with self._unmounted(record, quiesced=quiesced):
                parent = self._backing.snapshots.stat(record.snapshot_key).parent
                now = self._backing.clock()
                after = freeze(record, snapshot, parent=parent, now=now)
                self._move_on(record, after)
        _LOGGER.info("volume snapshot taken volume=%s snapshot=%s", name, snapshot)
        return self._value(after, find_snapshot(after, snapshot))

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream a volume's snapshots, oldest first.

        Raises:
            VolumeNotFoundError: There is no such volume.
            CorruptVolumeError: Its record cannot be read.
        """
        self._backing.check_open()
        record = self._record(name)
        for layer in record.history.layers if record.history else ():
            if layer.snapshot is not None:
                yield self._value(record, layer)

    def roll_back(
        self,
        name: VolumeName,
        snapshot: str,
        *,
        drop_later: bool = False,
        quiesced: bool = False,
    ) -> VolumeSnapshot:
        """Make a volume what it was when the snapshot was taken; the snapshot stays.

        What was written since the last snapshot is gone; take one before to keep it. Takes the
        same time whatever the volume holds. After failure the volume is as before, or recovery
        completes the rollback.

        Args:
            name: The volume.
            snapshot: Where to.
            drop_later: Also remove the snapshots that were taken after this one.
            quiesced: As for :meth:`create`.

        Raises:
            VolumeNotFoundError: There is no such volume.
            VolumeSnapshotNotFoundError: It has no such snapshot.
            InUseError: It is active and ``quiesced`` is not set, or it is in use all the same.
            CorruptVolumeError: It is damaged.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        self._backing.check_writable()
        self._sentinel.require()
        with self._locks.volume(name):
            record = self._settled(name)
            after = roll_back(record, snapshot, drop_later=drop_later)
            with self._unmounted(record, quiesced=quiesced):
                self._move_on(record, after)
                after = self._compaction.compact(after)
        _LOGGER.info("volume rolled back volume=%s snapshot=%s", name, snapshot)
        return self._value(after, find_snapshot(after, snapshot))

    def remove(self, name: VolumeName, snapshot: str, *, quiesced: bool = False) -> bool:
        """Remove a snapshot of a volume; idempotent. The volume and other snapshots stay the same.

        What only this snapshot held comes free with containerd's next collection, in whatever
        order snapshots are removed. Only what several others stand on stays as long as they do.

        Args:
            name: The volume.
            snapshot: Its snapshot.
            quiesced: As for :meth:`create`.

        Returns:
            Whether there was one.

        Raises:
            VolumeNotFoundError: There is no such volume.
            InUseError: It is active and ``quiesced`` is not set, or it is in use all the same.
            CorruptVolumeError: It is damaged.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        self._backing.check_writable()
        self._sentinel.require()
        with self._locks.volume(name):
            record = self._settled(name)
            try:
                after = forget(record, snapshot)
            except VolumeSnapshotNotFoundError:
                return False
            with self._unmounted(record, quiesced=quiesced):
                self._write(after)
                self._settling.settle(after)
                self._compaction.compact(after)
        _LOGGER.info("volume snapshot removed volume=%s snapshot=%s", name, snapshot)
        return True

    @contextmanager
    def _unmounted(self, record: VolumeRecord, *, quiesced: bool) -> Iterator[None]:
        """Have the volume unmounted for the block; mounted before, it is mounted afterwards."""
        rootfs = self._backing.layout.volume_rootfs(record.name)
        active = find_mount(rootfs) is not None
        if active:
            if not quiesced:
                raise InUseError(
                    f"volume {record.name} is active; deactivate it, or say that nobody uses it "
                    "(--quiesced)",
                    name=record.name,
                )
            self._activation.deactivate(record)
        try:
            self._activation.require_unmounted(record)
            yield
        finally:
            if active:
                self._activation.activate(self._record(record.name))

    def _move_on(self, before: VolumeRecord, after: VolumeRecord) -> None:
        """Replace the record, and make it true or take it back."""
        self._write(after)
        try:
            self._settling.settle(after)
        except CasError as error:
            self._take_back(before, after, error)
            raise

    def _take_back(self, before: VolumeRecord, after: VolumeRecord, error: CasError) -> None:
        """Return to the record before, if its writable layer is still what it was."""
        try:
            info = self._backing.snapshots.stat(before.snapshot_key)
            if info.kind is not SnapshotKind.ACTIVE:
                return
            self._write(before)
            remove_all_but(self._backing, before.name, before.snapshot_keys)
        except SnapshotNotFoundError:
            return
        except CasError as second:
            error.add_note(f"volume {after.name} is left to recovery: {second}")

    def _write(self, record: VolumeRecord) -> None:
        replace_record(self._backing.layout.volume(record.name), record)

    def _settled(self, name: VolumeName) -> VolumeRecord:
        record = self._record(name)
        self._settling.settle(record)
        return record

    def _record(self, name: VolumeName) -> VolumeRecord:
        if not stands(self._backing.layout, name):
            raise VolumeNotFoundError(f"there is no volume {name}", name=name)
        return read_record(self._backing.layout.volume(name), name)

    def _value(self, record: VolumeRecord, layer: FrozenLayer) -> VolumeSnapshot:
        try:
            size = self._backing.snapshots.usage(layer.key).size
        except SnapshotNotFoundError:
            size = 0
        return VolumeSnapshot(
            volume=record.name,
            name=layer.snapshot or "",
            created=layer.created,
            own_bytes=size,
        )


def _require_writable(record: VolumeRecord) -> None:
    if record.read_only:
        raise VolumeConflictError(
            f"volume {record.name} is read-only: it never changes, so there is nothing to take a "
            "snapshot of",
            name=record.name,
        )
