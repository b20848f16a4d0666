"""Puts right what killed operations on volumes left; an ordinary function, run at start.

It removes only what no complete volume refers to and nobody works on: work in progress holds the
volume's lock, or a lease. Whatever cannot be judged or removed is reported and left alone.
"""

__all__ = ["Recovery"]

import logging
from collections.abc import Iterator

from cas.errors import CasError, LeaseNotFoundError
from cas.fsops.durable import remove_temporaries
from cas.fsops.mounts import mounts_below
from cas.fsops.trees import remove_tree
from cas.model.cancellation import while_wanted
from cas.model.labels import VOLUME, VOLUMES_DIRECTORY
from cas.model.layout import Layout
from cas.model.records import SnapshotInfo
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.layers.extraction_key import EXTRACTION_PREFIX
from cas.store.layers.staging import sweep_staging
from cas.store.locking import Locks
from cas.volumes.adoption import adopt_converted
from cas.volumes.own_snapshots import remove_all_but
from cas.volumes.removal import Removal
from cas.volumes.scan import Leftover, LeftoverKind, iter_leftovers, iter_names, stands
from cas.volumes.snapshot_recovery import SnapshotRecovery
from cas.volumes.status import Recovered, RecoveryAction

_LOGGER = logging.getLogger(__name__)

_LOCK_SECONDS = 0.2
_LEASE_ATTEMPTS = 5


class Recovery:
    """Finishes or undoes interrupted preparations and removals.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        removal: Finishes removals.
        snapshots: Finishes what was done to volumes' snapshots.
    """

    def __init__(
        self, backing: Backing, locks: Locks, removal: Removal, snapshots: SnapshotRecovery
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._removal = removal
        self._volume_snapshots = snapshots

    def recover(self) -> list[Recovered]:
        """Look at everything once; idempotent, a second run finds nothing to do.

        Leases and ingests are not looked at: reap dead leases first, then nothing of them is held.

        Returns:
            What was found and done, in that order.

        Raises:
            InterruptedOperationError: The operation that this belongs to was stopped; the rest is
                left to the next run.
        """
        adopt_converted(self._backing, self._locks)
        found = [
            *self._leftover_directories(),
            *self._leftover_snapshots(),
            *self._volume_snapshots.recover(),
            *self._leftover_extractions(),
            *self._leftover_staging(),
            *self._foreign_mounts(),
        ]
        for each in found:
            _LOGGER.info(
                "recovery action=%s object=%s reason=%s", each.action, each.object, each.reason
            )
        return found

    def _leftover_directories(self) -> Iterator[Recovered]:
        volumes = self._backing.layout.volumes
        layout = self._backing.layout
        for leftover in while_wanted(
            [
                each
                for each in iter_leftovers(layout)
                if not each.is_disk and each.path.parent == layout.volumes
            ]
        ):
            try:
                with self._locks.volume(leftover.name, timeout_seconds=_LOCK_SECONDS):
                    yield from self._end(leftover)
            except CasError as error:
                yield _skipped(str(leftover.path), error)
        if volumes.is_dir():
            count = remove_temporaries(volumes)
            if count:
                reason = f"{count} unfinished directories of killed processes"
                yield Recovered(RecoveryAction.REMOVED_TEMPORARY, str(volumes), reason)

    def _end(self, leftover: Leftover) -> Iterator[Recovered]:
        """Finish a removal or undo a preparation, under the volume's lock."""
        path = str(leftover.path)
        if leftover.kind is LeftoverKind.REMOVING:
            if self._removal.finish(leftover.name):
                yield Recovered(
                    RecoveryAction.FINISHED_REMOVAL, path, "the removal was interrupted"
                )
            return
        if leftover.path.is_dir():
            # Refuses where something is mounted; the snapshot must not go before that is known.
            remove_tree(leftover.path)
            self._drop_snapshots(leftover.name)
            yield Recovered(
                RecoveryAction.UNDID_PREPARATION, path, "the preparation was interrupted"
            )

    def _leftover_snapshots(self) -> Iterator[Recovered]:
        volumes = self._backing.layout.volumes
        # Without the directory there is no telling which volumes exist: it may not be mounted.
        if not volumes.is_dir():
            return
        ours = [f'labels."{VOLUMES_DIRECTORY}"=="{volumes}"']
        names = {info.labels.get(VOLUME, "") for info in self._snapshots(ours)}
        for text in while_wanted(sorted(names)):
            try:
                name = VolumeName.parse(text)
                with self._locks.volume(name, timeout_seconds=_LOCK_SECONDS):
                    for key in self._drop_snapshots(name):
                        reason = f"there is no volume {name}"
                        yield Recovered(RecoveryAction.REMOVED_SNAPSHOT, key, reason)
            except CasError as error:
                yield _skipped(text, error)

    def _snapshots(self, filters: list[str]) -> list[SnapshotInfo]:
        return list(self._backing.snapshots.iter_snapshots(filters))

    def _drop_snapshots(self, name: VolumeName) -> list[str]:
        """Remove the snapshots that carry a volume's labels unless it exists; under its lock."""
        layout = self._backing.layout
        if stands(layout, name) or layout.volume_removing(name).exists():
            return []
        return remove_all_but(self._backing, name, ())

    def _leftover_extractions(self) -> Iterator[Recovered]:
        snapshots = self._backing.snapshots
        keys = [
            info.name
            for info in snapshots.iter_snapshots([f"name~=^{EXTRACTION_PREFIX}"])
            if _is_extraction(info)
        ]
        held = self._held_keys() if keys else frozenset()
        for key in while_wanted(keys):
            try:
                if key not in held and snapshots.remove(key):
                    reason = "the unpack was interrupted"
                    yield Recovered(RecoveryAction.REMOVED_SNAPSHOT, key, reason)
            except CasError as error:
                yield _skipped(key, error)

    def _leftover_staging(self) -> Iterator[Recovered]:
        for path in sweep_staging(self._backing.layout.unpacking):
            reason = "the unpack was interrupted"
            yield Recovered(RecoveryAction.REMOVED_TEMPORARY, str(path), reason)

    def _held_keys(self) -> frozenset[str]:
        """Collect the snapshots that leases hold, in one look during which no lease vanished.

        A lease that is renewed hands its resources to a successor and vanishes then: a look that
        meets it half-way could miss a key that is in use.
        """
        leases = self._backing.leases
        kind = f"snapshots/{self._backing.snapshotter}"
        for attempt in range(_LEASE_ATTEMPTS):
            try:
                return frozenset(
                    resource.id
                    for lease in list(leases.iter_leases())
                    for resource in leases.iter_resources(lease.id)
                    if resource.type == kind
                )
            except LeaseNotFoundError:
                if attempt == _LEASE_ATTEMPTS - 1:
                    raise
        return frozenset()

    def _foreign_mounts(self) -> Iterator[Recovered]:
        layout = self._backing.layout
        if not layout.volumes.is_dir():
            return
        resolved = Layout(layout.persist.resolve())
        expected = {resolved.volume(name) for name in iter_names(layout)}
        for point in mounts_below(layout.volumes):
            if not any(parent in expected for parent in (point.path, *point.path.parents)):
                reason = "it is mounted in the volumes directory and belongs to no volume"
                yield Recovered(RecoveryAction.REPORTED_MOUNT, str(point.path), reason)


def _is_extraction(info: SnapshotInfo) -> bool:
    return info.name.startswith(EXTRACTION_PREFIX)


def _skipped(what: str, error: CasError) -> Recovered:
    return Recovered(RecoveryAction.SKIPPED, what, error.message)
