"""Snapshots of container volumes: the use cases.

Taking one freezes the writable layer and puts a fresh one on it; rolling back puts a fresh one on
the snapshot. Neither takes time by what the volume holds. Each has happened when the volume's
record is replaced, see :mod:`cas.volumes.settling`.
"""

__all__ = ["VolumeSnapshot", "VolumeSnapshots"]

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from cas.errors import (
    CasError,
    CorruptVolumeError,
    InUseError,
    SnapshotNotFoundError,
    VolumeConflictError,
    VolumeNotFoundError,
)
from cas.fsops.mounts import find_mount
from cas.model.cancellation import check_operation
from cas.model.volume_history import find_snapshot, freeze, roll_back
from cas.model.volume_layers import FrozenLayer, check_snapshot_name
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.prune.reserve import room_to_remove
from cas.store.sentinel import Sentinel
from cas.volumes.activation import Activation
from cas.volumes.adoption import adopt
from cas.volumes.disk.scan import find_disk
from cas.volumes.group_journal import Group, GroupAction, note_group, remove_group
from cas.volumes.records import read_record
from cas.volumes.scan import stands
from cas.volumes.snapshot_changes import SnapshotChanges, is_taken
from cas.volumes.snapshot_groups import SnapshotGroups
from cas.volumes.status import VolumeSnapshot
from cas.volumes.undo import Undo

_LOGGER = logging.getLogger(__name__)

_Change = tuple[VolumeRecord, VolumeRecord]
"""A volume's record before and after."""


class VolumeSnapshots:
    """Takes, lists, returns to and removes snapshots of one store's container volumes.

    What is done to several volumes in one call is done to all of them or to none.

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
        self._changes = SnapshotChanges(backing, leasing)
        self._groups = SnapshotGroups(backing, locks, leasing)

    def create(
        self, names: Iterable[VolumeName], snapshot: str, *, quiesced: bool = False
    ) -> list[VolumeSnapshot]:
        """Take a snapshot of each volume; one that has a snapshot of this name keeps that.

        Takes the same time whatever the volumes hold, but for data that is not on disk yet. After
        failure they are as before; killed, or where even undoing fails, recovery ends it: one
        volume may have its snapshot then, several have it all or not at all.

        Args:
            names: The volumes, such as those of one application.
            snapshot: Name of the snapshot, unique within each volume.
            quiesced: Nobody uses the volumes although they are active: they are unmounted for the
                moment.

        Returns:
            The snapshots, in the order of the names.

        Raises:
            VolumeNotFoundError: There is no such volume.
            VolumeConflictError: One is read-only, so there is nothing to freeze, or a disk.
            InUseError: One is active and ``quiesced`` is not set, or it is in use all the same.
            InvalidNameError: ``snapshot`` is no name.
            LimitExceededError: One has too many snapshots.
            CorruptVolumeError: One is damaged.
            NoSpaceError: No room for the record.
        """
        check_snapshot_name(snapshot)
        with self._held(names) as held:
            records = [adopt(self._backing, record) for record in held]
            changes = []
            for record in records:
                if not is_taken(record, snapshot):
                    _require_writable(record)
                    changes.append((record, self._frozen(record, snapshot)))
            group = _group(GroupAction.CREATE, snapshot, changes)
            with self._unmounted(changes, quiesced=quiesced), self._noted(group):
                self._apply(changes, lambda _, after: self._changes.forget(after, snapshot))
        return [self._find(record.name, snapshot) for record in records]

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
        names: Iterable[VolumeName],
        snapshot: str,
        *,
        drop_later: bool = False,
        quiesced: bool = False,
    ) -> list[VolumeSnapshot]:
        """Make each volume what it was when the snapshot was taken; the snapshot stays.

        What was written since the last snapshot is gone; take one before to keep it. Takes the
        same time whatever the volumes hold. After failure they are as before; killed, or where even
        undoing fails, recovery completes the rollback of all of them if it had begun. A volume that
        has lost its writable layer can be rolled back, too.

        Args:
            names: The volumes; each has such a snapshot.
            snapshot: Where to.
            drop_later: Also remove the snapshots that were taken after this one.
            quiesced: As for :meth:`create`.

        Returns:
            The snapshots, in the order of the names.

        Raises:
            VolumeNotFoundError: There is no such volume.
            VolumeSnapshotNotFoundError: One has no such snapshot.
            InUseError: One is active and ``quiesced`` is not set, or it is in use all the same.
            CorruptVolumeError: One is damaged.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        check_snapshot_name(snapshot)
        with self._held(names, may_be_lost=True) as records:
            changes = [
                (record, roll_back(record, snapshot, drop_later=drop_later)) for record in records
            ]
            group = _group(GroupAction.ROLL_BACK, snapshot, changes, drop_later=drop_later)
            with self._unmounted(changes, quiesced=quiesced):
                with self._noted(group):
                    self._apply(changes, lambda before, _: self._changes.return_to(before))
                for _, after in changes:
                    self._changes.finish_quietly(after)
        return [self._find(record.name, snapshot) for record in records]

    def remove(self, name: VolumeName, snapshot: str, *, quiesced: bool = False) -> bool:
        """Remove a snapshot of a volume; idempotent. The volume and other snapshots stay the same.

        What only this snapshot held comes free with containerd's next collection, in whatever
        order snapshots are removed. Only what several others stand on stays as long as they do.
        Works on a full disk. After failure a repetition goes on.

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
        check_snapshot_name(snapshot)
        with self._held([name]) as records:
            if not is_taken(records[0], snapshot):
                return False
            with (
                self._unmounted([(records[0], records[0])], quiesced=quiesced),
                room_to_remove(self._backing.layout),
            ):
                self._changes.forget(records[0], snapshot)
        _LOGGER.info("volume snapshot removed volume=%s snapshot=%s", name, snapshot)
        return True

    @contextmanager
    def _held(
        self, names: Iterable[VolumeName], *, may_be_lost: bool = False
    ) -> Iterator[list[VolumeRecord]]:
        """Hold the locks of volumes and give their records, what was interrupted being ended.

        With ``may_be_lost`` also of a volume whose writable layer is gone.
        """
        self._backing.check_writable()
        self._sentinel.require()
        check_operation()
        names = list(dict.fromkeys(names))
        for _ in self._groups.end_interrupted():
            pass
        with self._locks.volumes(names):
            records = [self._record(name) for name in names]
            for record in records:
                with suppress(*([CorruptVolumeError] if may_be_lost else [])):
                    self._changes.settle(record)
            check_operation()  # from here on it is done or undone
            yield records

    @contextmanager
    def _noted(self, group: Group) -> Iterator[None]:
        """Have the group noted for the block, and after it unless recovery has to end it."""
        if len(group.before) < 2:  # noqa: PLR2004 - one volume has its record
            yield
            return
        path = note_group(self._backing.layout, group)
        try:
            yield
        except CasError:
            with suppress(CasError):
                if self._is_undone(group):
                    remove_group(path)
            raise
        remove_group(path)

    def _is_undone(self, group: Group) -> bool:
        records = [self._record(name) for name in group.before]
        if group.action is GroupAction.CREATE:
            return not any(is_taken(record, group.snapshot) for record in records)
        return all(record.snapshot_key == group.before[record.name] for record in records)

    def _apply(
        self,
        changes: Sequence[_Change],
        undo: Callable[[VolumeRecord, VolumeRecord], None],
    ) -> None:
        """Make all the changes, or undo those that were made."""
        with Undo() as steps:
            for before, after in changes:
                self._changes.apply(before, after)
                steps.add(f"volume {before.name}", partial(undo, before, after))
                _LOGGER.info("volume changed volume=%s key=%s", after.name, after.snapshot_key)

    def _frozen(self, record: VolumeRecord, snapshot: str) -> VolumeRecord:
        parent = self._backing.snapshots.stat(record.snapshot_key).parent
        return freeze(record, snapshot, parent=parent, now=self._backing.clock())

    @contextmanager
    def _unmounted(self, changes: Sequence[_Change], *, quiesced: bool) -> Iterator[None]:
        """Have the volumes unmounted for the block; those that were mounted are so afterwards."""
        with ExitStack() as stack:
            for record, _ in changes:
                if find_mount(self._backing.layout.volume_rootfs(record.name)) is not None:
                    _require_quiesced(record, quiesced=quiesced)
                    self._activation.deactivate(record)
                    stack.callback(self._activate_again, record.name)
                with suppress(SnapshotNotFoundError):  # lost, and so mounted nowhere
                    self._backing.snapshots.stat(record.snapshot_key)
                    self._activation.require_unmounted(record)
            yield

    def _activate_again(self, name: VolumeName) -> None:
        self._activation.activate(self._activation.used(self._record(name)))

    def _record(self, name: VolumeName) -> VolumeRecord:
        if not stands(self._backing.layout, name):
            self._refuse_disk(name)
            raise VolumeNotFoundError(f"there is no volume {name}", name=name)
        return read_record(self._backing.layout.volume(name), name)

    def _refuse_disk(self, name: VolumeName) -> None:
        if find_disk(self._backing.layout, name) is not None:
            raise VolumeConflictError(
                f"volume {name} is a disk, of which no snapshots are taken; deactivate it and copy "
                "its file",
                name=name,
            )

    def _find(self, name: VolumeName, snapshot: str) -> VolumeSnapshot:
        record = self._record(name)
        return self._value(record, find_snapshot(record, snapshot))

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


def _group(
    action: GroupAction,
    snapshot: str,
    changes: Sequence[_Change],
    *,
    drop_later: bool = False,
) -> Group:
    before = {record.name: record.snapshot_key for record, _ in changes}
    return Group(action, snapshot, drop_later, before)


def _require_writable(record: VolumeRecord) -> None:
    if record.read_only:
        raise VolumeConflictError(
            f"volume {record.name} is read-only: it never changes, so there is nothing to take a "
            "snapshot of",
            name=record.name,
        )


def _require_quiesced(record: VolumeRecord, *, quiesced: bool) -> None:
    if not quiesced:
        raise InUseError(
            f"volume {record.name} is active; deactivate it, or say that nobody uses it "
            "(--quiesced)",
            name=record.name,
        )
