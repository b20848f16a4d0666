"""Puts right what killed operations on disk volumes left: hidden files, and records of nothing."""

__all__ = ["DiskRecovery"]

from collections.abc import Iterator

from cas.errors import CasError
from cas.fsops.durable import remove_temporaries
from cas.model.layout import DiskPaths, Layout
from cas.store.locking import Locks
from cas.volumes.disk.histories import has_history, is_settled
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.disk.scan import iter_records_on_disk
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.scan import Leftover, LeftoverKind, iter_leftovers
from cas.volumes.status import Recovered, RecoveryAction

_LOCK_SECONDS = 0.2


class DiskRecovery:
    """Finishes or undoes interrupted preparations and removals of disks.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        removal: Finishes removals.
        settling: Ends what was done to snapshots.
    """

    def __init__(
        self, backing: DiskPlace, locks: Locks, removal: DiskRemoval, settling: DiskSettling
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._removal = removal
        self._settling = settling

    def recover(self) -> Iterator[Recovered]:
        """Look at everything once; a second run finds nothing to do."""
        layout = self._backing.layout
        for leftover in [each for each in iter_leftovers(layout) if each.is_disk]:
            yield from self._locked(_paths(layout, leftover), leftover)
        for paths in list(iter_records_on_disk(layout)):
            if not paths.file.exists():
                yield from self._locked(paths, None)
            elif has_history(paths):
                yield from self._settled(paths)
        for directory in (
            layout.clear_volumes,
            *(layout.disk_records(clear=clear) for clear in (False, True)),
        ):
            count = remove_temporaries(directory) if directory.is_dir() else 0
            if count:
                reason = f"{count} unfinished files of killed processes"
                yield Recovered(RecoveryAction.REMOVED_TEMPORARY, str(directory), reason)

    def _settled(self, paths: DiskPaths) -> Iterator[Recovered]:
        """End what was interrupted of a disk's snapshots; one that is worked on is left alone."""
        name = str(paths.name)
        try:
            if is_settled(paths):
                return
            with self._locks.volume(paths.name, timeout_seconds=_LOCK_SECONDS):
                if paths.file.exists() and self._settling.settle(paths):
                    reason = "a change of its snapshots was interrupted"
                    yield Recovered(RecoveryAction.FINISHED_SNAPSHOT, name, reason)
        except CasError as error:
            yield Recovered(RecoveryAction.SKIPPED, name, error.message)

    def _locked(self, paths: DiskPaths, leftover: Leftover | None) -> Iterator[Recovered]:
        what = str(paths.record if leftover is None else leftover.path)
        try:
            with self._locks.volume(paths.name, timeout_seconds=_LOCK_SECONDS):
                if leftover is not None and leftover.kind is LeftoverKind.REMOVING:
                    if self._removal.finish(paths.name):
                        reason = "the removal was interrupted"
                        yield Recovered(RecoveryAction.FINISHED_REMOVAL, what, reason)
                elif self._removal.undo_preparation(paths):
                    reason = "the preparation was interrupted"
                    yield Recovered(RecoveryAction.UNDID_PREPARATION, what, reason)
        except CasError as error:
            yield Recovered(RecoveryAction.SKIPPED, what, error.message)


def _paths(layout: Layout, leftover: Leftover) -> DiskPaths:
    return layout.disk(leftover.name, clear=leftover.path.parent == layout.clear_volumes)
