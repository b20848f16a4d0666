"""Ends operations on several volumes that a kill interrupted: all of them, or none."""

__all__ = ["SnapshotGroups"]

from collections.abc import Iterator
from pathlib import Path

from cas.errors import CasError
from cas.model.volume_history import find_snapshot, roll_back
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.volumes.group_journal import Group, GroupAction, iter_groups, remove_group
from cas.volumes.records import read_record
from cas.volumes.scan import stands
from cas.volumes.snapshot_changes import SnapshotChanges, is_taken
from cas.volumes.status import Recovered, RecoveryAction

_LOCK_SECONDS = 0.2


class SnapshotGroups:
    """Looks for the notes of groups and does what they ask for.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        leasing: Makes leases.
    """

    def __init__(self, backing: Backing, locks: Locks, leasing: Leasing) -> None:
        self._backing = backing
        self._locks = locks
        self._changes = SnapshotChanges(backing, leasing)

    def end_interrupted(self) -> Iterator[Recovered]:
        """End every group that nobody works on; cheap when there is none."""
        for path, group in iter_groups(self._backing.layout):
            try:
                with self._locks.volumes(group.before, timeout_seconds=_LOCK_SECONDS):
                    yield from self._end(path, group)
            except CasError as error:
                yield Recovered(RecoveryAction.SKIPPED, str(path), error.message)

    def _end(self, path: Path, group: Group) -> Iterator[Recovered]:
        if not path.exists():
            return  # its owner has finished it meanwhile
        records = [
            read_record(self._backing.layout.volume(name), name)
            for name in group.before
            if stands(self._backing.layout, name)
        ]
        for record in records:
            self._changes.settle(record)
        if group.action is GroupAction.CREATE:
            self._undo_unless_complete(group, records)
        else:
            self._roll_back_rest(group, records)
        remove_group(path)
        reason = f"'{group.action}' of snapshot {group.snapshot!r} of several volumes"
        yield Recovered(RecoveryAction.FINISHED_SNAPSHOT, str(path), reason)

    def _undo_unless_complete(self, group: Group, records: list[VolumeRecord]) -> None:
        if all(is_taken(record, group.snapshot) for record in records):
            return
        for record in records:
            if is_taken(record, group.snapshot):
                layer = find_snapshot(record, group.snapshot)
                if layer.frozen_from == group.before[record.name]:
                    self._changes.forget(record, group.snapshot)

    def _roll_back_rest(self, group: Group, records: list[VolumeRecord]) -> None:
        for record in records:
            untouched = record.snapshot_key == group.before[record.name]
            if untouched and is_taken(record, group.snapshot):
                after = roll_back(record, group.snapshot, drop_later=group.drop_later)
                self._changes.apply(record, after)
                self._changes.finish(after)
