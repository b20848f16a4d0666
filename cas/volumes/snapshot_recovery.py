"""Puts right what killed operations on volumes' snapshots left.

The record of a volume says what is to be, so whatever a kill interrupted is finished: the volume
is in the old state if the record was not replaced yet, else in the new one.
"""

__all__ = ["SnapshotRecovery"]

from collections import defaultdict
from collections.abc import Collection, Iterator

from cas.errors import CasError, CorruptVolumeError, InUseError
from cas.fsops.durable import is_temporary, remove_temporaries
from cas.fsops.mounts import find_mount
from cas.fsops.translation import translated
from cas.model.labels import VOLUME, VOLUMES_DIRECTORY
from cas.model.volume_history import mergeable
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.volumes.activation import Activation
from cas.volumes.compaction import Compaction
from cas.volumes.records import iter_records, read_record
from cas.volumes.scan import stands
from cas.volumes.settling import Settling
from cas.volumes.status import Recovered, RecoveryAction

_LOCK_SECONDS = 0.2


class SnapshotRecovery:
    """Finishes interrupted snapshots, rollbacks and removals of snapshots.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        activation: Tells what is mounted.
        settling: Makes and removes snapshots.
        compaction: Merges layers.
    """

    def __init__(
        self,
        backing: Backing,
        locks: Locks,
        activation: Activation,
        settling: Settling,
        compaction: Compaction,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._activation = activation
        self._settling = settling
        self._compaction = compaction

    def recover(self) -> Iterator[Recovered]:
        """Look at every complete volume once; one that is worked on is left alone."""
        present = self._present()
        for record in list(iter_records(self._backing.layout)):
            name = record.name
            if record.snapshotter != self._backing.snapshotter or not (
                self._is_unsettled(record, present[str(name)]) or self._has_temporaries(name)
            ):
                continue
            try:
                with self._locks.volume(name, timeout_seconds=_LOCK_SECONDS):
                    yield from self._finish(name)
            except CasError as error:
                yield Recovered(RecoveryAction.SKIPPED, str(name), error.message)

    def _present(self) -> defaultdict[str, set[str]]:
        present: defaultdict[str, set[str]] = defaultdict(set)
        ours = f'labels."{VOLUMES_DIRECTORY}"=="{self._backing.layout.volumes}"'
        for info in self._backing.snapshots.iter_snapshots([ours]):
            present[info.labels.get(VOLUME, "")].add(info.name)
        return present

    def _is_unsettled(self, record: VolumeRecord, present: Collection[str]) -> bool:
        wanted = set(record.snapshot_keys)
        if record.history is None:
            return not wanted.issuperset(present)
        return (
            wanted != set(present)
            or record.history.moved_from is not None
            or (mergeable(record) is not None and self._is_unmounted(record))
        )

    def _has_temporaries(self, name: VolumeName) -> bool:
        directory = self._backing.layout.volume(name)
        with translated("list", directory):
            return directory.is_dir() and any(
                is_temporary(path.name) for path in directory.iterdir()
            )

    def _finish(self, name: VolumeName) -> Iterator[Recovered]:
        layout = self._backing.layout
        if not stands(layout, name):
            return
        directory = layout.volume(name)
        if count := remove_temporaries(directory):
            reason = f"{count} unfinished files of killed processes"
            yield Recovered(RecoveryAction.REMOVED_TEMPORARY, str(directory), reason)
        before = read_record(directory, name)
        settled = self._settling.settle(before)
        after = self._compaction.compact(before) if self._is_unmounted(before) else before
        if settled or after != before:
            reason = "a change of its snapshots was interrupted"
            yield Recovered(RecoveryAction.FINISHED_SNAPSHOT, str(name), reason)

    def _is_unmounted(self, record: VolumeRecord) -> bool:
        if find_mount(self._backing.layout.volume_rootfs(record.name)) is not None:
            return False
        try:
            self._activation.require_unmounted(record)
        except InUseError:
            return False
        except CorruptVolumeError:
            # Its snapshot is not made yet, so nobody can have mounted it.
            return True
        return True
