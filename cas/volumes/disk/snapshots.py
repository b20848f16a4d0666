"""Snapshots of disk volumes: states that its format, or its file system, keeps without a copy.

Each operation has happened when the history of the volume is replaced, see
:mod:`cas.volumes.disk.settling`.
"""

__all__ = ["DiskSnapshots"]

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from cas.errors import (
    CasError,
    CorruptVolumeError,
    InUseError,
    VolumeConflictError,
    VolumeNotFoundError,
)
from cas.model.disk.format import DiskFormat
from cas.model.disk.history import (
    DiskHistory,
    DiskSnapshot,
    dooming_next,
    find_disk_snapshot,
    forgetting,
    keeping,
    returning,
)
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.space import Space
from cas.volumes.disk.admission import DiskAdmission
from cas.volumes.disk.histories import read_history, write_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.room import bytes_alone
from cas.volumes.disk.scan import find_disk
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.disk.states import RESERVED_BYTES, DiskStates
from cas.volumes.disk.unused import require_unused
from cas.volumes.status import VolumeSnapshot


class DiskSnapshots:
    """A :class:`cas.volumes.snapshot_kind.SnapshotKind`.

    Args:
        backing: The store.
        settling: Does what a history asks for.
    """

    def __init__(self, backing: Backing, settling: DiskSettling) -> None:
        self._backing = backing
        self._admission = DiskAdmission(backing)
        self._settling = settling

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a disk volume of this name."""
        return find_disk(self._backing.layout, name) is not None

    def settle(self, name: VolumeName, *, may_be_lost: bool = False) -> None:
        """Bring the disk to what its history says."""
        with suppress(*([CorruptVolumeError] if may_be_lost else [])):
            self._settling.settle(self._paths(name))

    def mark(self, name: VolumeName) -> str:
        """Give the number of the next state: each rollback has one."""
        return str(read_history(self._paths(name)).next_number)

    def taken_at(self, name: VolumeName, snapshot: str) -> str | None:
        """Give the number of a snapshot's state."""
        history = read_history(self._paths(name))
        return next((str(each.number) for each in history.snapshots if each.name == snapshot), None)

    def freezing(self, name: VolumeName, snapshot: str) -> "_Keeping":
        """Keep the present state under a name."""
        paths = self._paths(name)
        history = dooming_next(read_history(paths), name, token=secrets.token_hex(8))
        change = self._change(paths, history.token)
        record = look_at_disk(paths, self._backing.limits).record
        if record is not None and record.read_only:
            raise VolumeConflictError(
                f"volume {name} is read-only: it never changes, so there is nothing to take a "
                "snapshot of",
                name=name,
            )
        return _Keeping(change, history, snapshot)

    def returning(self, name: VolumeName, snapshot: str, *, drop_later: bool) -> "_Returning":
        """Make the disk what it was, and keep what it is until that is certain."""
        paths = self._paths(name)
        history = read_history(paths)
        target = find_disk_snapshot(history, name, snapshot)
        return _Returning(self._change(paths, history.token), target, drop_later)

    def forget(self, name: VolumeName, snapshot: str) -> None:
        """Take a snapshot out of the history, and drop its state."""
        paths = self._paths(name)
        history = read_history(paths)
        after = forgetting(history, find_disk_snapshot(history, name, snapshot))
        write_history(paths, after)
        self._settling.carry_out(paths, after)

    @contextmanager
    def idle(self, name: VolumeName, *, quiesced: bool) -> Iterator[None]:  # noqa: ARG002 - below
        """See that nobody has the disk open.

        Who says that it is quiesced is not believed: a machine that is paused writes through what
        it has open when it goes on, and that is not the disk any more.
        """
        require_unused(self._paths(name))
        yield

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream the volume's snapshots, oldest first."""
        paths = self._paths(name)
        history = read_history(paths)
        if not history.snapshots:
            return
        inside = look_at_disk(paths, self._backing.limits).format is DiskFormat.QCOW2
        before = 0
        for each in history.snapshots:
            grown, before = max(0, each.allocated - before), each.allocated
            copy = paths.snapshot_copy(each.number)
            size = grown if inside else bytes_alone(copy) if copy.is_file() else 0
            yield VolumeSnapshot(name, each.name, each.created, size)

    def _change(self, paths: DiskPaths, token: str) -> "_Change":
        states = self._settling.states(paths, token)
        history = read_history(paths)
        return _Change(self._backing, self._admission, self._settling, paths, states, history)

    def _paths(self, name: VolumeName) -> DiskPaths:
        paths = find_disk(self._backing.layout, name)
        if paths is None:
            raise VolumeNotFoundError(
                f"there is no volume {name}; 'cas volume ls' lists those that are", name=name
            )
        return paths


@dataclass(frozen=True, slots=True)
class _Change:
    """What all changes of a disk are made of."""

    backing: Backing
    admission: DiskAdmission
    settling: DiskSettling
    paths: DiskPaths
    states: DiskStates
    history: DiskHistory

    def keep(self, number: int) -> None:
        what = f"a snapshot of volume {self.paths.name}"
        with Space(self.backing).reserve(RESERVED_BYTES, what, at=self.paths.directory):
            self.states.keep(number)

    def take_back(self, history: DiskHistory) -> None:
        """Return to what was; a step that failed may have left what belongs to nobody."""
        write_history(self.paths, history)
        self.states.repair(killed=False)
        self.settling.carry_out(self.paths, history)

    def carry_out(self, history: DiskHistory) -> None:
        write_history(self.paths, history)
        self.settling.carry_out(self.paths, history)


@dataclass(frozen=True, slots=True)
class _Keeping:
    """A :class:`cas.volumes.snapshot_kind.SnapshotChange`."""

    change: _Change
    announced: DiskHistory
    snapshot: str

    @property
    def name(self) -> VolumeName:
        return self.change.paths.name

    @property
    def before(self) -> str:
        return str(self.change.history.next_number)

    def apply(self) -> None:
        change = self.change
        with change.admission.changeable(change.paths):
            self._announced_and_kept()

    def _announced_and_kept(self) -> None:
        change = self.change
        write_history(change.paths, self.announced)
        try:
            self._keep()
        except CasError as error:
            try:
                number = change.history.next_number
                change.take_back(replace(self.announced, next_number=number))
            except CasError as second:
                error.add_note(f"what is left of it is for recovery: {second}")
            raise

    def _keep(self) -> None:
        change = self.change
        (number,) = self.announced.doomed
        change.keep(number)
        allocated = look_at_disk(change.paths, change.backing.limits).allocated
        now = change.backing.clock()
        taken = keeping(self.announced, self.snapshot, number=number, now=now, allocated=allocated)
        write_history(change.paths, taken)

    def undo(self) -> None:
        history = read_history(self.change.paths)
        taken = [each for each in history.snapshots if each.name == self.snapshot]
        for each in taken:
            history = forgetting(history, each)
        self.change.carry_out(history)

    def finish(self) -> None:
        """Nothing: all that was is needed."""


@dataclass(frozen=True, slots=True)
class _Returning:
    """A :class:`cas.volumes.snapshot_kind.SnapshotChange`."""

    change: _Change
    target: DiskSnapshot
    drop_later: bool

    @property
    def name(self) -> VolumeName:
        return self.change.paths.name

    @property
    def before(self) -> str:
        return str(self.change.history.next_number)

    @property
    def after(self) -> DiskHistory:
        return returning(self.change.history, self.target, drop_later=self.drop_later)

    def apply(self) -> None:
        change, after = self.change, self.after
        write_history(change.paths, after)
        try:
            change.keep(change.history.next_number)
            change.states.return_to(self.target.number)
            write_history(change.paths, replace(after, restoring=None))
        except CasError as error:
            try:
                # Who has opened the disk meanwhile has it as it was, and writes to it.
                if isinstance(error, InUseError) or self._is_used():
                    self._take_back(changed=False)
                else:
                    self.undo()
            except CasError as second:
                error.add_note(f"volume {self.name} is left to recovery: {second}")
            raise

    def undo(self) -> None:
        """Return to the state that was kept first; without it nothing has happened to the disk."""
        self._take_back(changed=self.change.states.has(self.change.history.next_number))

    def _is_used(self) -> bool:
        try:
            require_unused(self.change.paths)
        except InUseError:
            return True
        return False

    def _take_back(self, *, changed: bool) -> None:
        number = self.change.history.next_number
        restoring = number if changed else None
        self.change.take_back(replace(self.change.history, doomed=(number,), restoring=restoring))

    def finish(self) -> None:
        self.change.settling.carry_out(self.change.paths, replace(self.after, restoring=None))
