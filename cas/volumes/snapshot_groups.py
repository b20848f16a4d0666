"""Ends operations on several volumes that a kill interrupted: all of them, or none."""

__all__ = ["SnapshotGroups"]

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cas.errors import CasError, InUseError, VolumeNotFoundError
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.store.prune.reserve import room_to_remove
from cas.volumes.disk.unused import is_only_read
from cas.volumes.given_up import naming_given_up
from cas.volumes.group_journal import (
    Group,
    GroupAction,
    iter_groups,
    read_group,
    remove_group,
    strike_volume,
)
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
                    yield from self._end(path)
            except CasError as error:
                yield Recovered(RecoveryAction.SKIPPED, str(path), error.message)

    def settle(self) -> None:
        """As :meth:`end_interrupted`, told to the log: what an operation on volumes begins with."""
        for each in self.end_interrupted():
            _LOGGER.info("group of volumes action=%s object=%s", each.action, each.object)

    def let_go(self, name: VolumeName) -> None:
        """Have it that no group rolls a volume back later, since somebody is about to write to it.

        For one whose group could not be ended; the caller holds the volume's lock.

        Raises:
            NoSpaceError: No room to note it.
        """
        for path, group in iter_groups(self._backing.layout):
            if name in group.before and _is_to_return(group, name, self._kinds.snapshots_of(name)):
                self._strike(path, name)

    def _strike(self, path: Path, name: VolumeName) -> None:
        with self._locks.groups(), room_to_remove(self._backing.layout):
            strike_volume(path, name)
        _LOGGER.warning("volume in use is not rolled back with its group volume=%s", name)

    def _end(self, path: Path) -> Iterator[Recovered]:
        group = read_group(path)
        if group is None:
            return  # its owner has finished it meanwhile
        standing = {}
        for name in group.before:
            with suppress(VolumeNotFoundError):  # removed meanwhile
                standing[name] = self._kinds.snapshots_of(name)
        reason = f"'{group.action}' of snapshot {group.snapshot!r} of several volumes"
        if group.action is GroupAction.CREATE:
            _undo_unless_complete(group, standing)
        elif used := self._roll_back_rest(path, group, standing):
            reason += f", but for what is in use: {'; '.join(used)}"
        remove_group(path)
        yield Recovered(RecoveryAction.FINISHED_SNAPSHOT, str(path), reason)

    def _roll_back_rest(self, path: Path, group: Group, standing: _Standing) -> list[str]:
        """Roll back what was not yet; gives why some are not, now or later: they are in use.

        One that fails keeps none of the others back: later they may be in use.
        """
        used: list[str] = []
        failed: list[CasError] = []
        for name, kind in standing.items():
            try:
                _roll_back(group, name, kind)
            except CasError as error:
                if not isinstance(error, InUseError) or is_only_read(error):
                    failed.append(error)
                    continue
                if _is_to_return(group, name, kind):
                    self._strike(path, name)
                    error.extend(f"volume {name} stays as it is", given_up=name)
                used.append(error.message)
        if failed:
            raise failed[0]
        return used


def _undo_unless_complete(group: Group, standing: _Standing) -> None:
    for name, kind in standing.items():
        kind.settle(name)
    taken = {name: kind.taken_at(name, group.snapshot) for name, kind in standing.items()}
    if None not in taken.values():
        return
    for name, mark in taken.items():
        if mark == group.before[name]:  # not one that was there before
            standing[name].forget(name, group.snapshot)


def _roll_back(group: Group, name: VolumeName, kind: SnapshotKind) -> None:
    kind.settle(name)
    if _is_to_return(group, name, kind):
        with kind.idle(name, quiesced=False):
            change = kind.returning(name, group.snapshot, drop_later=group.drop_later)
            with naming_given_up([change]):
                change.apply()
            change.finish()


def _is_to_return(group: Group, name: VolumeName, kind: SnapshotKind) -> bool:
    """Whether the group rolls the volume back, and has not begun to."""
    if group.action is not GroupAction.ROLL_BACK or kind.mark(name) != group.before.get(name):
        return False
    return kind.taken_at(name, group.snapshot) is not None
