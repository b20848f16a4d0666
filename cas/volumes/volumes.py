"""Volumes: the use cases as one small API.

A volume exists if and only if its directory, or the file of its disk, has its final name. Every
method that changes a volume holds the volume's lock, between threads and processes alike, and may
be repeated.
"""

__all__ = [
    "DiskStatus",
    "ForeignEntry",
    "Recovered",
    "RecoveryAction",
    "VolumeState",
    "VolumeStatus",
    "VolumeUsage",
    "Volumes",
]

import heapq
from collections.abc import Callable, Iterator

from cas.errors import CasError, VolumeNotFoundError
from cas.model.cancellation import Cancellation, check_operation
from cas.model.disk.record import DiskRequest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.image.catalogue import ImageCatalogue
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel
from cas.volumes.creation import VolumeCreation
from cas.volumes.kinds import VolumeKinds
from cas.volumes.records import iter_records
from cas.volumes.scan import iter_foreign
from cas.volumes.snapshot_groups import SnapshotGroups
from cas.volumes.status import (
    DiskStatus,
    ForeignEntry,
    Recovered,
    RecoveryAction,
    VolumeState,
    VolumeStatus,
    VolumeUsage,
)


class Volumes:
    """The volumes of one store.

    The vault guard is the caller's: nothing here asks whether the vault may be written.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
        images: Its images.
        unpack: Unpacks them.
        kinds: Of its volumes.
    """

    def __init__(
        self,
        backing: Backing,
        locks: Locks,
        leasing: Leasing,
        images: ImageCatalogue,
        unpack: Unpack,
        *,
        kinds: VolumeKinds,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._kinds = kinds
        self._creation = VolumeCreation(backing, locks, leasing, images, unpack, kinds)
        self._sentinel = Sentinel(backing)
        self._groups = SnapshotGroups(backing, locks, kinds)

    def prepare(
        self,
        name: VolumeName,
        image: str,
        *,
        read_only: bool = False,
        activate: bool = False,
        replace: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a container volume; see :meth:`cas.volumes.creation.VolumeCreation.prepare`."""
        return self._creation.prepare(
            name,
            image,
            read_only=read_only,
            activate=activate,
            replace=replace,
            cancel=cancel,
            progress=progress,
        )

    def prepare_disk(
        self,
        name: VolumeName,
        request: DiskRequest,
        *,
        replace: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a disk volume; see :meth:`cas.volumes.creation.VolumeCreation.prepare_disk`."""
        return self._creation.prepare_disk(
            name, request, replace=replace, cancel=cancel, progress=progress
        )

    def iter_volumes(self) -> Iterator[VolumeStatus]:
        """Stream every volume by name, damaged ones included."""
        yield from heapq.merge(
            *(kind.statuses() for kind in self._kinds.all), key=lambda status: status.name
        )
        self._backing.check_open()  # while the vault is locked, nothing in it can be found

    def iter_disks(self) -> Iterator[VolumeStatus]:
        """Stream the disk volumes by name, damaged ones included; asks no containerd."""
        yield from self._kinds.disks.statuses()
        self._backing.check_open()

    def iter_records(self) -> Iterator[VolumeRecord]:
        """Stream the readable records of container volumes; asks no containerd."""
        yield from iter_records(self._backing.layout)
        self._backing.check_open()

    def iter_foreign(self) -> Iterator[ForeignEntry]:
        """Stream what lies in the directories of volumes and is no volume."""
        yield from iter_foreign(self._backing.layout)
        self._backing.check_open()

    def get(self, name: VolumeName) -> VolumeStatus:
        """Look at one volume.

        Raises:
            VolumeNotFoundError: There is none of this name.
        """
        return self._kinds.of(name).status(name)

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Mount a volume; idempotent. After failure nothing is mounted.

        A disk volume is only looked at: there is nothing to mount.

        Raises:
            VolumeNotFoundError: There is none of this name.
            CorruptVolumeError: Its record, snapshot or mount point is gone.
            MountPointError: The mount point is occupied by something else.
            InUseError: Its writable layer is mounted elsewhere.
        """
        self._backing.check_writable()
        self._groups.settle()
        with self._locks.volume(name):
            kind = self._kinds.of(name)
            self._groups.let_go(name)
            return kind.activate(name)

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """Unmount a volume; idempotent. What was written is on disk then.

        Of a disk volume it is only seen that nobody has it open.

        Raises:
            VolumeNotFoundError: There is none of this name.
            InUseError: Processes use it; it stays mounted.
            MountPointError: What is mounted there is not the volume.
        """
        self._backing.check_writable()
        with self._locks.volume(name):
            return self._kinds.of(name).deactivate(name)

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
            check_operation()
            # Each is asked: one may have a removal to finish and another the volume.
            removed = [kind.remove(name, force=force) for kind in self._kinds.all]
            return any(removed)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure a volume; walks the files of a container volume's writable layer.

        That takes as long as ``du`` does, and at most a quarter of an hour.
        A snapshot that is taken or returned to meanwhile makes the numbers those of no moment.

        Raises:
            VolumeNotFoundError: There is none of this name.
            SnapshotNotFoundError: Its snapshot is gone.
            DeadlineExceededError: It has so many files that it took longer.
        """
        return self._kinds.of(name).usage(name)

    def recover(self) -> list[Recovered]:
        """Finish or undo what killed operations left; idempotent, leaves running work alone.

        Returns:
            What was found and what was done about it.
        """
        self._backing.check_writable()
        ended = list(self._groups.end_interrupted())
        return [*ended, *(found for kind in self._kinds.all for found in kind.recover())]

    def _each(
        self, act: Callable[[VolumeName], object]
    ) -> Iterator[tuple[VolumeName, CasError | None]]:
        self._backing.check_writable()
        for name in list(heapq.merge(*(kind.names() for kind in self._kinds.all))):
            try:
                act(name)
            except VolumeNotFoundError:
                continue  # removed meanwhile
            except CasError as error:
                yield name, error
            else:
                yield name, None
