"""Ends operations on several volumes that a kill interrupted: all of them, or none."""

__all__ = ["SnapshotGroups"]

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cas.errors import CasError, VolumeNotFoundError
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.volumes.group_journal import Group, GroupAction, iter_groups, remove_group
from cas.volumes.kinds import VolumeKinds
from cas.volumes.snapshot_kind import SnapshotKind
from cas.volumes.status import Recovered, RecoveryAction

_LOGGER = logging.getLogger(__name__)

_Standing = Mapping[VolumeName, SnapshotKind]

_LOCK_SECONDS = 0.2


class SnapshotGroups:
    """Looks for the notes of groups and does what they ask for.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        kinds: Of its volumes.
    """

    def __init__(self, backing: Backing, locks: Locks, kinds: VolumeKinds) -> None:
        self._backing = backing
        self._locks = locks
        self._kinds = kinds

    def end_interrupted(self) -> Iterator[Recovered]:
        """End every group that nobody works on; cheap when there is none."""
        for path, group in iter_groups(self._backing.layout):
            try:
                with self._locks.volumes(group.before, timeout_seconds=_LOCK_SECONDS):
                    yield from self._end(path, group)
            except CasError as error:
                yield Recovered(RecoveryAction.SKIPPED, str(path), error.message)

    def settle(self) -> None:
        """As :meth:`end_interrupted`, told to the log: what an operation on volumes begins with."""
        for each in self.end_interrupted():
            _LOGGER.info("group of volumes action=%s object=%s", each.action, each.object)

    def _end(self, path: Path, group: Group) -> Iterator[Recovered]:
        if not path.exists():
            return  # its owner has finished it meanwhile
        standing = {}
        for name in group.before:
            with suppress(VolumeNotFoundError):  # removed meanwhile
                standing[name] = self._kinds.snapshots_of(name)
        for name, kind in standing.items():
            kind.settle(name)
        if group.action is GroupAction.CREATE:
            _undo_unless_complete(group, standing)
        else:
            _roll_back_rest(group, standing)
        remove_group(path)
        reason = f"'{group.action}' of snapshot {group.snapshot!r} of several volumes"
        yield Recovered(RecoveryAction.FINISHED_SNAPSHOT, str(path), reason)


def _undo_unless_complete(group: Group, standing: _Standing) -> None:
    taken = {name: kind.taken_at(name, group.snapshot) for name, kind in standing.items()}
    if None not in taken.values():
        return
    for name, mark in taken.items():
        if mark == group.before[name]:  # not one that was there before
            standing[name].forget(name, group.snapshot)


def _roll_back_rest(group: Group, standing: _Standing) -> None:
    for name, kind in standing.items():
        untouched = kind.mark(name) == group.before[name]
        if untouched and kind.taken_at(name, group.snapshot) is not None:
            change = kind.returning(name, group.snapshot, drop_later=group.drop_later)
            change.apply()
            change.finish()
