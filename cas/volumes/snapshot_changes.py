"""Brings one volume from one record to the next, or back; the steps of all use cases on snapshots.

Callers hold the volume's lock, and the volume is mounted nowhere.
"""

__all__ = ["SnapshotChanges", "is_taken"]

from contextlib import suppress

from cas.errors import CasError, SnapshotNotFoundError, VolumeSnapshotNotFoundError
from cas.model.records import SnapshotKind
from cas.model.volume_history import find_snapshot, forget
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.volumes.compaction import Compaction
from cas.volumes.records import replace_record
from cas.volumes.settling import Settling


def is_taken(record: VolumeRecord, snapshot: str) -> bool:
    """Whether the volume has a snapshot of that name."""
    try:
        find_snapshot(record, snapshot)
    except VolumeSnapshotNotFoundError:
        return False
    return True


class SnapshotChanges:
    """Changes volumes.

    Args:
        backing: The store.
        leasing: Makes leases.
    """

    def __init__(self, backing: Backing, leasing: Leasing) -> None:
        self._backing = backing
        self._settling = Settling(backing, leasing)
        self._compaction = Compaction(backing, leasing, self._settling)

    def settle(self, record: VolumeRecord) -> None:
        """Finish what a kill interrupted, as the record says."""
        self._settling.settle(record)

    def apply(self, before: VolumeRecord, after: VolumeRecord) -> None:
        """Replace the record and make what it names; nothing of the state before is removed.

        After failure the volume is as before; where that cannot be had, the error says that
        recovery is left to complete the change.
        """
        self._write(after)
        try:
            self._settling.make(after)
        except CasError as error:
            self._take_back(before, error)
            raise

    def finish(self, record: VolumeRecord) -> VolumeRecord:
        """Remove what the record does not name, and give back the space of what it does not need.

        Returns:
            The volume's record as it is now.
        """
        self._settling.settle(record)
        return self._compaction.compact(record)

    def return_to(self, before: VolumeRecord) -> None:
        """Undo a rollback that was applied and not finished."""
        self._write(before)
        self._settling.settle(before)

    def forget(self, record: VolumeRecord, snapshot: str) -> None:
        """Take a snapshot out of the volume, which stays as it is."""
        after = forget(record, snapshot)
        self._write(after)
        self.finish(after)

    def _take_back(self, before: VolumeRecord, error: CasError) -> None:
        """Return to the record before, if its writable layer is still what it was."""
        try:
            with suppress(SnapshotNotFoundError):
                info = self._backing.snapshots.stat(before.snapshot_key)
                if info.kind is SnapshotKind.ACTIVE:
                    self.return_to(before)
                    return
        except CasError as second:
            error.add_note(f"what is left of it is for recovery: {second}")
        error.add_note(f"recovery completes the change of volume {before.name}")

    def _write(self, record: VolumeRecord) -> None:
        replace_record(self._backing.layout.volume(record.name), record)
