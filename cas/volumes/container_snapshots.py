"""Snapshots of container volumes.

Taking one freezes the writable layer and puts a fresh one on it; rolling back puts a fresh one on
the snapshot. Neither takes time by what the volume holds. Each has happened when the volume's
record is replaced, see :mod:`cas.volumes.settling`.
"""

__all__ = ["ContainerSnapshots"]

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cas.errors import (
    CorruptVolumeError,
    InUseError,
    SnapshotNotFoundError,
    VolumeConflictError,
)
from cas.fsops.mounts import find_mount
from cas.model.volume_history import find_snapshot, freeze, roll_back
from cas.model.volume_layers import FrozenLayer
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.volumes.activation import Activation
from cas.volumes.adoption import adopt
from cas.volumes.records import read_record
from cas.volumes.scan import stands
from cas.volumes.snapshot_changes import SnapshotChanges, is_taken
from cas.volumes.status import VolumeSnapshot


class ContainerSnapshots:
    """A :class:`cas.volumes.snapshot_kind.SnapshotKind`.

    Args:
        backing: The store.
        leasing: Makes leases.
    """

    def __init__(self, backing: Backing, leasing: Leasing) -> None:
        self._backing = backing
        self._activation = Activation(backing)
        self._changes = SnapshotChanges(backing, leasing)

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a container volume of this name."""
        return stands(self._backing.layout, name)

    def settle(self, name: VolumeName, *, may_be_lost: bool = False) -> None:
        """Bring containerd to what the volume's record says."""
        with suppress(*([CorruptVolumeError] if may_be_lost else [])):
            self._changes.settle(self._record(name))

    def mark(self, name: VolumeName) -> str:
        """Give the key of the writable layer: none is used twice."""
        return self._record(name).snapshot_key

    def taken_at(self, name: VolumeName, snapshot: str) -> str | None:
        """Give the key that the frozen layer had when it was writable."""
        record = self._record(name)
        return find_snapshot(record, snapshot).frozen_from if is_taken(record, snapshot) else None

    def freezing(self, name: VolumeName, snapshot: str) -> "_Freezing":
        """Freeze the writable layer and put a new one on it."""
        record = adopt(self._backing, self._record(name))
        _require_writable(record)
        parent = self._backing.snapshots.stat(record.snapshot_key).parent
        after = freeze(record, snapshot, parent=parent, now=self._backing.clock())
        return _Freezing(self._changes, record, after, snapshot)

    def returning(self, name: VolumeName, snapshot: str, *, drop_later: bool) -> "_Returning":
        """Put a new writable layer on a snapshot in place of the present one."""
        record = self._record(name)
        return _Returning(self._changes, record, roll_back(record, snapshot, drop_later=drop_later))

    def forget(self, name: VolumeName, snapshot: str) -> None:
        """Take a snapshot out of the volume, which stays as it is."""
        self._changes.forget(self._record(name), snapshot)

    @contextmanager
    def idle(self, name: VolumeName, *, quiesced: bool) -> Iterator[None]:
        """Have the volume unmounted for the block; one that was mounted is so afterwards."""
        record = self._record(name)
        mounted = find_mount(self._backing.layout.volume_rootfs(name)) is not None
        if mounted:
            _require_quiesced(record, quiesced=quiesced)
            self._activation.deactivate(record)
        try:
            with suppress(SnapshotNotFoundError):  # lost, and so mounted nowhere
                self._backing.snapshots.stat(record.snapshot_key)
                self._activation.require_unmounted(record)
            yield
        finally:
            if mounted:
                self._activation.activate(self._activation.used(self._record(name)))

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream the volume's snapshots, oldest first."""
        record = self._record(name)
        for layer in record.history.layers if record.history else ():
            if layer.snapshot is not None:
                yield self._value(record, layer, layer.snapshot)

    def _record(self, name: VolumeName) -> VolumeRecord:
        return read_record(self._backing.layout.volume(name), name)

    def _value(self, record: VolumeRecord, layer: FrozenLayer, snapshot: str) -> VolumeSnapshot:
        try:
            size = self._backing.snapshots.usage(layer.key).size
        except SnapshotNotFoundError:
            size = 0
        return VolumeSnapshot(
            volume=record.name, name=snapshot, created=layer.created, own_bytes=size
        )


@dataclass(frozen=True, slots=True)
class _Freezing:
    """A :class:`cas.volumes.snapshot_kind.SnapshotChange`."""

    changes: SnapshotChanges
    record: VolumeRecord
    after: VolumeRecord
    snapshot: str

    @property
    def name(self) -> VolumeName:
        return self.record.name

    @property
    def before(self) -> str:
        return self.record.snapshot_key

    @property
    def given_up(self) -> None:
        return None

    def apply(self) -> None:
        self.changes.apply(self.record, self.after)

    def undo(self) -> None:
        self.changes.forget(self.after, self.snapshot)

    def finish(self) -> None:
        """Nothing: all that was is needed."""


@dataclass(frozen=True, slots=True)
class _Returning:
    """A :class:`cas.volumes.snapshot_kind.SnapshotChange`."""

    changes: SnapshotChanges
    record: VolumeRecord
    after: VolumeRecord

    @property
    def name(self) -> VolumeName:
        return self.record.name

    @property
    def before(self) -> str:
        return self.record.snapshot_key

    @property
    def given_up(self) -> None:
        return None

    def apply(self) -> None:
        self.changes.apply(self.record, self.after)

    def undo(self) -> None:
        self.changes.return_to(self.record)

    def finish(self) -> None:
        self.changes.finish(self.after)


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
