"""Snapshots of disk volumes: states that its format, or its file system, keeps without a copy.

Each operation has happened when the history of the volume is replaced, see
:mod:`cas.volumes.disk.settling`.
"""

__all__ = ["DiskSnapshots"]

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cas.errors import CorruptVolumeError, VolumeConflictError, VolumeNotFoundError
from cas.model.disk.format import DiskFormat
from cas.model.disk.history import dooming_next, find_disk_snapshot, forgetting
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.volumes.disk.admission import DiskAdmission
from cas.volumes.disk.changes import DiskChange, Keeping
from cas.volumes.disk.histories import read_history, write_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.returning import Returning
from cas.volumes.disk.room import bytes_alone
from cas.volumes.disk.scan import find_disk
from cas.volumes.disk.settling import DiskSettling
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

    def freezing(self, name: VolumeName, snapshot: str) -> Keeping:
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
        return Keeping(change, history, snapshot)

    def returning(self, name: VolumeName, snapshot: str, *, drop_later: bool) -> Returning:
        """Make the disk what it was, and keep what it is until that is certain."""
        paths = self._paths(name)
        history = read_history(paths)
        target = find_disk_snapshot(history, name, snapshot)
        change = self._change(paths, history.token)
        return Returning(change, target, drop_later=drop_later)

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

    def _change(self, paths: DiskPaths, token: str) -> DiskChange:
        states = self._settling.states(paths, token)
        history = read_history(paths)
        return DiskChange(self._backing, self._admission, self._settling, paths, states, history)

    def _paths(self, name: VolumeName) -> DiskPaths:
        paths = find_disk(self._backing.layout, name)
        if paths is None:
            raise VolumeNotFoundError(
                f"there is no volume {name}; 'cas volume ls' lists those that are", name=name
            )
        return paths
