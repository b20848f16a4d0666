"""Disk volumes: one file each; there is nothing to mount."""

__all__ = ["DiskVolumes"]

from collections.abc import Iterator

from cas.errors import CasError, CorruptVolumeError, InUseError, VolumeNotFoundError
from cas.fsops.mounts import holders
from cas.fsops.record_locks import has_record_lock
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks
from cas.volumes.disk.histories import read_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.recovery import DiskRecovery
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.disk.room import bytes_alone_and_shared, snapshot_bytes
from cas.volumes.disk.scan import find_disk, iter_disks
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.disk.unused import require_unused
from cas.volumes.status import Recovered, VolumeState, VolumeStatus, VolumeUsage


class DiskVolumes:
    """A :class:`cas.volumes.kind.VolumeKind`.

    Args:
        backing: The store.
        locks: Its locks.
        removal: Takes them away.
        settling: Ends what was interrupted of their snapshots.
    """

    def __init__(
        self, backing: DiskPlace, locks: Locks, removal: DiskRemoval, settling: DiskSettling
    ) -> None:
        self._backing = backing
        self._removal = removal
        self._settling = settling
        self._recovery = DiskRecovery(backing, locks, removal, settling)

    def names(self) -> Iterator[VolumeName]:
        """Stream the names of those that exist."""
        return iter(sorted(paths.name for paths in iter_disks(self._backing.layout)))

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a disk volume of this name."""
        return find_disk(self._backing.layout, name) is not None

    def statuses(self) -> Iterator[VolumeStatus]:
        """Look at every one, by name."""
        for paths in sorted(iter_disks(self._backing.layout), key=lambda paths: paths.name):
            status = self._status(paths)
            # One that was removed while we looked is not damaged.
            if status.state is not VolumeState.CORRUPT or self.exists(paths.name):
                yield status

    def status(self, name: VolumeName) -> VolumeStatus:
        """Look at one that exists.

        Raises:
            VolumeNotFoundError: It was removed while we looked.
        """
        status = self._status(self._paths(name))
        if status.state is VolumeState.CORRUPT:
            self._paths(name)  # one that is gone by now is not damaged
        return status

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Look whether one that exists can be used; there is nothing to mount.

        What a kill interrupted of its snapshots is ended first, unless it is used already.

        Raises:
            CorruptVolumeError: It cannot.
            InUseError: A rollback was interrupted, which waits for somebody who reads the disk.
        """
        paths = self._paths(name)
        try:
            self._settling.settle(paths)
        except InUseError:
            if read_history(paths).restoring is not None:
                raise  # it would be returned to a state under the machine, or after it
        status = self.status(name)
        if status.problem is not None:
            raise CorruptVolumeError(status.problem, name=name, path=status.rootfs)
        return status

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """See that nobody has one that exists open.

        Raises:
            InUseError: Somebody has.
        """
        require_unused(self._paths(name))
        return self.status(name)

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove whatever there is of this name."""
        return self._removal.remove(name, force=force)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure one that exists: allocated blocks, those that other files have too apart.

        What lies inside its own file as a snapshot is its own.
        """
        paths = self._paths(name)
        look_at_disk(paths, self._backing.limits)  # one that is damaged is not measured
        own, shared = bytes_alone_and_shared(paths.file)
        return VolumeUsage(
            own_bytes=own,
            shared_bytes=shared,
            inodes=1,
            snapshot_bytes=snapshot_bytes(paths),
            users=tuple(holders(paths.file)),
        )

    def recover(self) -> Iterator[Recovered]:
        """Finish or undo what killed operations left."""
        return self._recovery.recover()

    def _paths(self, name: VolumeName) -> DiskPaths:
        paths = find_disk(self._backing.layout, name)
        if paths is None:
            raise VolumeNotFoundError(
                f"there is no volume {name}; 'cas volume ls' lists those that are", name=name
            )
        return paths

    def _status(self, paths: DiskPaths) -> VolumeStatus:
        try:
            disk = look_at_disk(paths, self._backing.limits)
            used = has_record_lock(paths.file)
        except CasError as error:
            return VolumeStatus(paths.name, VolumeState.CORRUPT, paths.file, None, error.message)
        state = VolumeState.ACTIVE if used else VolumeState.INACTIVE
        return VolumeStatus(paths.name, state, paths.file, None, None, disk)
