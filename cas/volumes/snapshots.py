"""Snapshots of volumes: the use cases, for one volume or several of whatever kinds.

What is done to several volumes in one call is done to all of them or to none. How a volume keeps a
state of itself is the business of its kind, see :mod:`cas.volumes.snapshot_kind`.
"""

__all__ = ["VolumeSnapshots"]

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from cas.errors import CasError
from cas.model.cancellation import check_operation
from cas.model.events import EventKind
from cas.model.volume_layers import check_snapshot_name
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.store.prune.reserve import room_to_remove
from cas.store.sentinel import Sentinel
from cas.volumes.given_up import naming_given_up
from cas.volumes.group_journal import Group, GroupAction, note_group, remove_group
from cas.volumes.kinds import VolumeKinds
from cas.volumes.snapshot_groups import SnapshotGroups
from cas.volumes.snapshot_kind import SnapshotChange
from cas.volumes.status import VolumeSnapshot
from cas.volumes.undo import Undo

_LOGGER = logging.getLogger(__name__)


class VolumeSnapshots:
    """Takes, lists, returns to and removes snapshots of one store's volumes.

    Args:
        backing: The store.
        locks: Its locks.
        kinds: Of its volumes.
    """

    def __init__(self, backing: Backing, locks: Locks, kinds: VolumeKinds) -> None:
        self._backing = backing
        self._locks = locks
        self._kinds = kinds
        self._sentinel = Sentinel(backing)
        self._groups = SnapshotGroups(backing, locks, kinds)

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
            VolumeConflictError: One is read-only, so there is nothing to freeze, or a disk whose
                format and file system cannot keep a state without a full copy.
            InUseError: One is active and ``quiesced`` is not set, or it is in use all the same,
                which a disk is that anybody has open.
            InvalidNameError: ``snapshot`` is no name.
            LimitExceededError: One has too many snapshots.
            CorruptVolumeError: One is damaged.
            NoSpaceError: No room for the record, or, unless disks may be thin, for a disk to be
                written anew beside its snapshot.
            QemuImgMissingError: One is a qcow2 disk, and there is no qemu-img.
            QemuImgError: qemu-img failed.
            DeadlineExceededError: qemu-img hangs.
            ConfinementError: qemu-img cannot be confined as it must.
        """
        check_snapshot_name(snapshot)
        with self._held(names) as held:
            changes = [
                kind.freezing(name, snapshot)
                for name in held
                if (kind := self._kinds.snapshots_of(name)).taken_at(name, snapshot) is None
            ]
            with self._idle(changes, quiesced=quiesced):
                self._apply(changes, GroupAction.CREATE, snapshot)
            taken = [self._find(name, snapshot) for name in held]
        self._tell(EventKind.VOLUME_SNAPSHOT_CREATED, changes)
        return taken

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream a volume's snapshots, oldest first.

        Raises:
            VolumeNotFoundError: There is no such volume.
            CorruptVolumeError: Its record cannot be read.
        """
        self._backing.check_open()
        yield from self._kinds.snapshots_of(name).iter_snapshots(name)

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
        same time whatever the volumes hold. After failure they are as before, but for a disk that a
        machine has opened meanwhile: it stays as it is, and the error names it (``given_up``).
        Killed, or where even undoing fails, recovery completes the rollback of all of them if it
        had begun, but for those that somebody uses by then. A volume that has lost its writable
        layer can be rolled back, too.

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
        with self._held(names, may_be_lost=True) as held:
            changes: list[SnapshotChange] = [
                self._kinds.snapshots_of(name).returning(name, snapshot, drop_later=drop_later)
                for name in held
            ]
            with self._idle(changes, quiesced=quiesced):
                self._apply(changes, GroupAction.ROLL_BACK, snapshot, drop_later=drop_later)
                for change in changes:
                    _finish_quietly(change)
            taken = [self._find(name, snapshot) for name in held]
        self._tell(EventKind.VOLUME_ROLLED_BACK, changes)
        return taken

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
        with self._held([name]):
            kind = self._kinds.snapshots_of(name)
            if kind.taken_at(name, snapshot) is None:
                return False
            with kind.idle(name, quiesced=quiesced), room_to_remove(self._backing.layout):
                kind.forget(name, snapshot)
        _LOGGER.info("volume snapshot removed volume=%s snapshot=%s", name, snapshot)
        self._backing.events.publish(EventKind.VOLUME_SNAPSHOT_REMOVED, [str(name)])
        return True

    @contextmanager
    def _held(
        self, names: Iterable[VolumeName], *, may_be_lost: bool = False
    ) -> Iterator[list[VolumeName]]:
        """Hold the locks of volumes and give their names, what was interrupted being ended.

        With ``may_be_lost`` also of a volume whose present content is gone.
        """
        self._backing.check_writable()
        self._sentinel.require()
        check_operation()
        names = list(dict.fromkeys(names))
        self._groups.settle()
        with self._locks.volumes(names):
            for name in names:
                self._kinds.snapshots_of(name).settle(name, may_be_lost=may_be_lost)
            check_operation()  # from here on it is done or undone
            yield names

    @contextmanager
    def _idle(self, changes: Sequence[SnapshotChange], *, quiesced: bool) -> Iterator[None]:
        """Have the volumes used by nobody for the block."""
        with ExitStack() as stack:
            for change in changes:
                kind = self._kinds.snapshots_of(change.name)
                stack.enter_context(kind.idle(change.name, quiesced=quiesced))
            yield

    def _apply(
        self,
        changes: Sequence[SnapshotChange],
        action: GroupAction,
        snapshot: str,
        *,
        drop_later: bool = False,
    ) -> None:
        """Make all the changes, or undo those that were made."""
        before = {change.name: change.before for change in changes}
        group = Group(action, snapshot, drop_later, before)
        with self._noted(group, changes), naming_given_up(changes), Undo() as steps:
            for change in changes:
                change.apply()
                steps.add(f"volume {change.name}", change.undo)
                _LOGGER.info("volume changed volume=%s action=%s", change.name, action)

    @contextmanager
    def _noted(self, group: Group, changes: Sequence[SnapshotChange]) -> Iterator[None]:
        """Have the group noted for the block, and after it unless recovery has to end it."""
        if len(group.before) < 2:  # noqa: PLR2004 - one volume has its record
            yield
            return
        path = note_group(self._backing.layout, group)
        try:
            yield
        except CasError:
            given_up = [each.name for each in changes if each.given_up]
            with suppress(CasError):
                if self._is_undone(group, given_up):
                    remove_group(path)
            raise
        remove_group(path)

    def _is_undone(self, group: Group, given_up: Collection[VolumeName]) -> bool:
        left = group.before.keys() - given_up
        marks = {name: self._kinds.snapshots_of(name) for name in left}
        if group.action is GroupAction.CREATE:
            return not any(kind.taken_at(name, group.snapshot) for name, kind in marks.items())
        return all(kind.mark(name) == group.before[name] for name, kind in marks.items())

    def _tell(self, what: EventKind, changes: Sequence[SnapshotChange]) -> None:
        if changes:
            self._backing.events.publish(what, [str(change.name) for change in changes])

    def _find(self, name: VolumeName, snapshot: str) -> VolumeSnapshot:
        """Give a snapshot that is there, and stays while the volume's lock is held."""
        found = self._kinds.snapshots_of(name).iter_snapshots(name)
        return next(each for each in found if each.name == snapshot)


def _finish_quietly(change: SnapshotChange) -> None:
    """Finish where the change itself has happened: recovery can do it as well."""
    try:
        change.finish()
    except CasError as error:
        _LOGGER.warning("space is left to recovery volume=%s error=%s", change.name, error)
