"""Container volumes: the use cases as one small API.

A volume exists if and only if its directory has its final name. Every method that changes a
volume holds the volume's lock, between threads and processes alike, and may be repeated.
"""

__all__ = [
    "ForeignEntry",
    "Recovered",
    "RecoveryAction",
    "VolumeState",
    "VolumeStatus",
    "VolumeUsage",
    "Volumes",
]

from collections.abc import Callable, Iterator

from cas.errors import (
    CasError,
    CorruptVolumeError,
    LockTimeoutError,
    MountPointError,
    VolumeNotFoundError,
)
from cas.fsops.mounts import MountPoint, find_mount, mounts_below
from cas.model.cancellation import Cancellation
from cas.model.layout import Layout
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.image.catalogue import ImageCatalogue
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel
from cas.volumes.activation import Activation
from cas.volumes.compaction import Compaction
from cas.volumes.prepare import Preparation
from cas.volumes.records import iter_records, read_record
from cas.volumes.recovery import Recovery
from cas.volumes.removal import Removal
from cas.volumes.scan import iter_foreign, iter_names, stands
from cas.volumes.settling import Settling
from cas.volumes.snapshot_recovery import SnapshotRecovery
from cas.volumes.status import (
    ForeignEntry,
    Recovered,
    RecoveryAction,
    VolumeState,
    VolumeStatus,
    VolumeUsage,
)

_LOOK_SECONDS = 5.0
"""For work on a volume to end before it is called damaged; a snapshot takes a part of a second."""


class Volumes:
    """The container volumes of one store.

    The vault guard is the caller's: nothing here asks whether the vault may be written.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
        images: Its images.
        unpack: Unpacks them.
    """

    def __init__(
        self,
        backing: Backing,
        locks: Locks,
        leasing: Leasing,
        images: ImageCatalogue,
        unpack: Unpack,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._activation = Activation(backing)
        self._removal = Removal(backing, self._activation)
        self._preparation = Preparation(backing, leasing, images, unpack, self._removal)
        self._sentinel = Sentinel(backing)
        self._settling = Settling(backing, leasing)
        compaction = Compaction(backing, leasing, self._settling)
        snapshots = SnapshotRecovery(backing, locks, self._activation, self._settling, compaction)
        self._recovery = Recovery(backing, locks, self._removal, snapshots)

    def prepare(
        self,
        name: VolumeName,
        image: str,
        *,
        read_only: bool = False,
        activate: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a volume from an image; idempotent, existing data stays untouched.

        After failure there is no volume (one that could only not be activated is there).

        Args:
            name: The volume.
            image: Reference of the image, or docker's short form of it.
            read_only: Without a writable layer.
            activate: Also mount it.
            cancel: Stops the preparation, from any thread.
            progress: Told about layers that are unpacked.

        Returns:
            The volume as it is now.

        Raises:
            ImageNotFoundError: There is no such image.
            PlatformNotFoundError: It has nothing for this platform.
            ContentMissingError: A blob of it is not in the store.
            VolumeConflictError: The name is taken by another image, or by something that is no
                container volume.
            AlreadyExistsError: A snapshot of somebody else has the volume's key.
            CorruptVolumeError: The volume exists and is damaged.
            DiffIDMismatchError: A layer is not what the image's config says.
            LayerError: A layer cannot be unpacked.
            LimitExceededError: A layer expands beyond the limit.
            NoSpaceError: There is too little room.
            MountPointError: With ``activate``: the mount point is occupied.
            InterruptedOperationError: ``cancel`` was set.
        """
        with self._locks.volume(name):
            stood = self._exists(name)
            if stood:
                self._usable(name)
            record = self._preparation.prepare(
                name, image, read_only=read_only, cancel=cancel, progress=progress
            )
            if activate:
                rootfs = self._activation.activate(record)
                return VolumeStatus(name, VolumeState.ACTIVE, rootfs, record)
        return self.get(name) if stood else self._inactive(record)

    def iter_volumes(self) -> Iterator[VolumeStatus]:
        """Stream every volume by name, damaged ones included."""
        layout = self._backing.layout
        resolved = Layout(layout.persist.resolve())
        mounts = {point.path: point for point in mounts_below(layout.volumes)}
        for name in iter_names(layout):
            status = self._status(name, mounts.get(resolved.volume_rootfs(name)))
            if status.state is VolumeState.CORRUPT:
                # One that was removed or worked on while we looked is not damaged.
                if not self._exists(name):
                    continue
                status = self._look_again(name) or status
            yield status
        self._backing.check_open()  # while the vault is locked, nothing in it can be found

    def iter_records(self) -> Iterator[VolumeRecord]:
        """Stream the records of the volumes that have a readable one; asks no containerd."""
        yield from iter_records(self._backing.layout)
        self._backing.check_open()

    def iter_foreign(self) -> Iterator[ForeignEntry]:
        """Stream what lies in the volumes directory and is no container volume."""
        yield from iter_foreign(self._backing.layout)
        self._backing.check_open()

    def get(self, name: VolumeName) -> VolumeStatus:
        """Look at one volume.

        Raises:
            VolumeNotFoundError: There is none of this name.
        """
        self._require(name)
        status = self._status(name, find_mount(self._backing.layout.volume_rootfs(name)))
        if status.state is VolumeState.CORRUPT:
            status = self._look_again(name) or status
        return status

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Mount a volume; idempotent. After failure nothing is mounted.

        Raises:
            VolumeNotFoundError: There is none of this name.
            CorruptVolumeError: Its record, snapshot or mount point is gone.
            MountPointError: The mount point is occupied by something else.
            InUseError: Its writable layer is mounted elsewhere.
        """
        self._backing.check_writable()
        with self._locks.volume(name):
            record = self._usable(name)
            rootfs = self._activation.activate(record)
        # Known, and not asked for: a containerd that is gone by now must not make it a failure.
        return VolumeStatus(name, VolumeState.ACTIVE, rootfs, record)

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """Unmount a volume; idempotent. What was written is on disk then.

        Raises:
            VolumeNotFoundError: There is none of this name.
            InUseError: Processes use it; it stays mounted.
            MountPointError: What is mounted there is not the volume.
        """
        self._backing.check_writable()
        with self._locks.volume(name):
            record = self._usable(name)
            unmounted = self._activation.deactivate(record)
        return self._inactive(record) if unmounted else self.get(name)

    def activate_all(self) -> list[tuple[VolumeName, CasError | None]]:
        """Mount every volume, as after a reboot; one that fails does not keep the others back.

        Returns:
            Every volume, with the error if it could not be mounted.
        """
        return list(self.activate_each())

    def activate_each(self) -> Iterator[tuple[VolumeName, CasError | None]]:
        """Mount every volume, one after the other, and yield what became of each."""
        return self._each(self.activate)

    def deactivate_all(self) -> list[tuple[VolumeName, CasError | None]]:
        """Unmount every volume; one that fails does not keep the others back.

        Returns:
            Every volume, with the error if it could not be unmounted.
        """
        return list(self.deactivate_each())

    def deactivate_each(self) -> Iterator[tuple[VolumeName, CasError | None]]:
        """Unmount every volume, one after the other, and yield what became of each."""
        return self._each(self.deactivate)

    def remove(self, name: VolumeName, *, force: bool = False) -> bool:
        """Remove a volume with its data; idempotent.

        Its space comes back with containerd's next collection.

        Args:
            name: The volume.
            force: Also when processes use it or it is damaged beyond recognition.

        Returns:
            Whether there was one.

        Raises:
            InUseError: It is in use and ``force`` is not set.
            MountPointError: Something else is mounted on it and ``force`` is not set.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        self._backing.check_writable()
        # The record in its directory is what a rebuild knows of the volume's image.
        self._sentinel.require()
        with self._locks.volume(name):
            return self._removal.remove(name, force=force)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure a volume; walks the files of its writable layer.

        A snapshot that is taken or returned to meanwhile makes the numbers those of no moment.

        Raises:
            VolumeNotFoundError: There is none of this name.
            SnapshotNotFoundError: Its snapshot is gone.
        """
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
        )

    def recover(self) -> list[Recovered]:
        """Finish or undo what killed operations left; idempotent, leaves running work alone.

        Returns:
            What was found and what was done about it.
        """
        self._backing.check_writable()
        return self._recovery.recover()

    def _parents(self, key: str) -> Iterator[str]:
        while key := self._backing.snapshots.stat(key).parent:
            yield key

    def _each(
        self, act: Callable[[VolumeName], object]
    ) -> Iterator[tuple[VolumeName, CasError | None]]:
        self._backing.check_writable()
        for name in list(iter_names(self._backing.layout)):
            try:
                act(name)
            except VolumeNotFoundError:
                continue  # removed meanwhile
            except CasError as error:
                yield name, error
            else:
                yield name, None

    def _require(self, name: VolumeName) -> None:
        if not self._exists(name):
            self._backing.check_open()
            raise VolumeNotFoundError(f"there is no volume {name}", name=name)

    def _exists(self, name: VolumeName) -> bool:
        return stands(self._backing.layout, name)

    def _record(self, name: VolumeName) -> VolumeRecord:
        self._require(name)
        return read_record(self._backing.layout.volume(name), name)

    def _usable(self, name: VolumeName) -> VolumeRecord:
        """Read the record of a volume whose lock is held, and finish what a kill interrupted."""
        record = self._record(name)
        self._settling.require(record)
        return record

    def _inactive(self, record: VolumeRecord) -> VolumeStatus:
        rootfs = self._backing.layout.volume_rootfs(record.name)
        return VolumeStatus(record.name, VolumeState.INACTIVE, rootfs, record)

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
            record = read_record(self._backing.layout.volume(name), name)
            active = self._activation.is_active(record, point)
        except (CorruptVolumeError, MountPointError) as error:
            return VolumeStatus(name, VolumeState.CORRUPT, rootfs, record, error.message)
        state = VolumeState.ACTIVE if active else VolumeState.INACTIVE
        return VolumeStatus(name, state, rootfs, record)
