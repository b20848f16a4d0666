"""Container volumes: a directory each, over which the writable snapshot of an image is mounted."""

__all__ = ["ContainerVolumes"]

from collections.abc import Iterator

from cas.errors import CorruptVolumeError, LockTimeoutError, MountPointError
from cas.fsops.mounts import MountPoint, find_mount, holders, mounts_below
from cas.model.cancellation import check_operation
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.volumes.activation import Activation
from cas.volumes.compaction import Compaction
from cas.volumes.records import read_record
from cas.volumes.recovery import Recovery
from cas.volumes.removal import Removal
from cas.volumes.scan import iter_names, stands
from cas.volumes.settling import Settling
from cas.volumes.snapshot_recovery import SnapshotRecovery
from cas.volumes.status import Recovered, VolumeState, VolumeStatus, VolumeUsage

_LOOK_SECONDS = 5.0
"""For work on a volume to end before it is called damaged; a snapshot takes a part of a second."""


class ContainerVolumes:
    """A :class:`cas.volumes.kind.VolumeKind`.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
        activation: Mounts them.
        removal: Takes them away.
    """

    def __init__(
        self,
        backing: Backing,
        locks: Locks,
        leasing: Leasing,
        *,
        activation: Activation,
        removal: Removal,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._activation = activation
        self._removal = removal
        self._settling = Settling(backing, leasing)
        compaction = Compaction(backing, leasing, self._settling)
        snapshots = SnapshotRecovery(backing, locks, activation, self._settling, compaction)
        self._recovery = Recovery(backing, locks, removal, snapshots)

    def names(self) -> Iterator[VolumeName]:
        """Stream the names of those that exist, sorted."""
        return iter_names(self._backing.layout)

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a container volume of this name."""
        return stands(self._backing.layout, name)

    def statuses(self) -> Iterator[VolumeStatus]:
        """Look at every one, with one look at the mount table."""
        layout = self._backing.layout
        resolved = Layout(layout.persist.resolve())
        mounts = {point.path: point for point in mounts_below(layout.volumes)}
        for name in self.names():
            status = self._status(name, mounts.get(resolved.volume_rootfs(name)))
            if status.state is VolumeState.CORRUPT:
                # One that was removed or worked on while we looked is not damaged.
                if not self.exists(name):
                    continue
                status = self._look_again(name) or status
            yield status

    def status(self, name: VolumeName) -> VolumeStatus:
        """Look at one that exists."""
        status = self._status(name, find_mount(self._backing.layout.volume_rootfs(name)))
        if status.state is VolumeState.CORRUPT:
            status = self._look_again(name) or status
        return status

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Mount one that exists; idempotent."""
        record = self._activation.used(self.usable(name))
        rootfs = self._activation.activate(record)
        # Known, and not asked for: a containerd that is gone by now must not make it a failure.
        return VolumeStatus(name, VolumeState.ACTIVE, rootfs, record)

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """Unmount one that exists; idempotent."""
        record = self.usable(name)
        unmounted = self._activation.deactivate(record)
        return self.inactive(record) if unmounted else self.status(name)

    def inactive(self, record: VolumeRecord) -> VolumeStatus:
        """Say of one that is known to be complete and not mounted just that."""
        rootfs = self._backing.layout.volume_rootfs(record.name)
        return VolumeStatus(record.name, VolumeState.INACTIVE, rootfs, record)

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove whatever there is of this name."""
        return self._removal.remove(name, force=force)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure one that exists; walks the files of its writable layer."""
        record = self._record(name)
        own = self._backing.snapshots.usage(record.snapshot_key)
        frozen = set(record.snapshot_keys[1:])
        sizes = [self._backing.snapshots.usage(key).size for key in frozen]
        below = [key for key in self._parents(record.snapshot_key) if key not in frozen]
        return VolumeUsage(
            own_bytes=own.size,
            shared_bytes=sum(self._backing.snapshots.usage(key).size for key in below),
            inodes=own.inodes,
            snapshot_bytes=sum(sizes),
            users=self._users(name),
        )

    def recover(self) -> Iterator[Recovered]:
        """Finish or undo what killed operations left."""
        yield from self._recovery.recover()

    def usable(self, name: VolumeName) -> VolumeRecord:
        """Read the record of one whose lock is held, and finish what a kill interrupted."""
        record = self._record(name)
        self._settling.require(record)
        return record

    def _users(self, name: VolumeName) -> tuple[tuple[int, str], ...]:
        rootfs = self._backing.layout.volume_rootfs(name)
        return () if find_mount(rootfs) is None else tuple(holders(rootfs))

    def _parents(self, key: str) -> Iterator[str]:
        while key := self._backing.snapshots.stat(key).parent:
            check_operation()
            yield key

    def _record(self, name: VolumeName) -> VolumeRecord:
        return read_record(self._backing.layout.volume(name), name)

    def _look_again(self, name: VolumeName) -> VolumeStatus | None:
        """Look while nobody works on the volume; None when somebody does for long."""
        try:
            with self._locks.volume(name, timeout_seconds=_LOOK_SECONDS):
                return self._status(name, find_mount(self._backing.layout.volume_rootfs(name)))
        except LockTimeoutError:
            return None

    def _status(self, name: VolumeName, point: MountPoint | None) -> VolumeStatus:
        rootfs = self._backing.layout.volume_rootfs(name)
        record = None
        try:
            record = self._record(name)
            active = self._activation.is_active(record, point)
        except (CorruptVolumeError, MountPointError) as error:
            return VolumeStatus(name, VolumeState.CORRUPT, rootfs, record, error.message)
        state = VolumeState.ACTIVE if active else VolumeState.INACTIVE
        return VolumeStatus(name, state, rootfs, record)
