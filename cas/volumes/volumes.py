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
import logging
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
from cas.volumes.activation import Activation
from cas.volumes.containers import ContainerVolumes
from cas.volumes.disk.disks import DiskVolumes
from cas.volumes.disk.prepare import DiskPreparation
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.kind import VolumeKind
from cas.volumes.prepare import Preparation
from cas.volumes.records import iter_records
from cas.volumes.removal import Removal
from cas.volumes.replacement import Replacement
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

_LOGGER = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
"""For work on a volume to end before it is called damaged; a snapshot takes a part of a second."""


class Volumes:
    """The volumes of one store.

    The vault guard is the caller's: nothing here asks whether the vault may be written.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
        images: Its images.
        unpack: Unpacks them.
        qemu: Works on disk images.
    """

    def __init__(
        self,
        backing: Backing,
        locks: Locks,
        leasing: Leasing,
        images: ImageCatalogue,
        unpack: Unpack,
        *,
        qemu: QemuImg,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._activation = Activation(backing)
        self._removal, self._disk_removal = Removal(backing, self._activation), DiskRemoval(backing)
        removal, disk_removal = self._removal, self._disk_removal
        self._preparation = Preparation(backing, leasing, images, unpack, removal)
        self._disk_preparation = DiskPreparation(backing, leasing, images, disk_removal, qemu)
        self._replacement = Replacement(backing, leasing, images, unpack)
        self._sentinel = Sentinel(backing)
        self._containers = ContainerVolumes(
            backing, locks, leasing, activation=self._activation, removal=removal
        )
        self._disks = DiskVolumes(backing, locks, disk_removal)
        self._kinds: tuple[VolumeKind, ...] = (self._containers, self._disks)
        self._groups = SnapshotGroups(backing, locks, leasing)

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
        """Make a container volume from an image; idempotent, existing data stays untouched.

        After failure there is no volume (one that could only not be activated is there). With
        ``replace`` the generations before are as they were after a failure that comes before it
        is certain that the volume can be made; later they may be inactive or gone.

        Args:
            name: The volume.
            image: Reference of the image, or docker's short form of it.
            read_only: Without a writable layer.
            activate: Also mount it.
            replace: Remove the earlier generations of the volume, with their data and snapshots,
                once it is certain that this one can be made, and before it takes room.
            cancel: Stops the preparation, from any thread.
            progress: Told about layers that are unpacked.

        Returns:
            The volume as it is now.

        Raises:
            ImageNotFoundError: There is no such image.
            PlatformNotFoundError: It has nothing for this platform.
            MalformedDocumentError: It is no image of a container, but a disk for example.
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
            InUseError: With ``replace``: an earlier generation is in use; nothing is removed.
            InterruptedOperationError: ``cancel`` was set.
        """
        self._end_interrupted()
        earlier = self._earlier(name) if replace else []
        with self._locks.volumes([name, *earlier]):
            self._disk_removal.finish(name)  # of a disk that had the name
            stood = self._containers.exists(name)
            if stood:
                self._containers.usable(name)
            elif earlier:
                self._preparation.require_makeable(name)
                self._make_certain(image, earlier, cancel=cancel, progress=progress)
                self._remove_all(earlier)
            record = self._preparation.prepare(
                name, image, read_only=read_only, cancel=cancel, progress=progress
            )
            if stood:
                self._remove_all(earlier)
            if activate:
                record = self._activation.used(record)
                rootfs = self._activation.activate(record)
                return VolumeStatus(name, VolumeState.ACTIVE, rootfs, record)
        return self.get(name) if stood else self._containers.inactive(record)

    def _earlier(self, name: VolumeName) -> list[VolumeName]:
        return [
            each
            for kind in self._kinds
            for each in kind.names()
            if each.uuid == name.uuid and each.generation < name.generation
        ]

    def _make_certain(
        self,
        image: str,
        earlier: list[VolumeName],
        *,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        freed = 0
        for each in earlier:
            usage = self._kind(each).usage(each)
            freed += usage.own_bytes + usage.snapshot_bytes
        self._replacement.make_certain(image, freed, cancel=cancel, progress=progress)

    def _remove_all(self, names: list[VolumeName]) -> None:
        """Remove volumes whose locks are held, none if one is in use, and give their room back."""
        if not names:
            return
        self._sentinel.require()
        for each in names:
            self._kind(each).deactivate(each)
        for each in names:
            self._kind(each).remove(each, force=False)
        self._backing.leases.collect_garbage()

    def prepare_disk(
        self,
        name: VolumeName,
        request: DiskRequest,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a disk volume; idempotent, existing data stays untouched.

        One of the same name, place, origin, format and size is left alone, also when the image is
        gone by now, and so is one that we did not make and know nothing of. After failure there is
        no volume.

        Args:
            name: The volume.
            request: What it is to be.
            cancel: Stops the preparation, from any thread.
            progress: Told of bytes that are copied, unpacked or converted.

        Returns:
            The volume as it is now.

        Raises:
            ImageNotFoundError: There is no such image.
            BlobNotFoundError: There is no such blob.
            DiskNotFoundError: The image holds no disk.
            AmbiguousDiskError: It holds several.
            DiskFormatError: The disk is of another format than it is said to be, or of one that
                cannot be used or converted.
            DiskImageError: It is malformed, cut off, or refers to other files.
            MalformedArchiveError: What it is compressed or packed in is damaged.
            VolumeSizeError: It is larger than what is asked for, or cannot grow.
            LimitExceededError: It, or what it expands to, is larger than allowed.
            ContentMissingError: A blob of the image is not in the store.
            CorruptBlobError: A stored blob is not what its digest says.
            VolumeConflictError: The name is taken by something else, in whichever directory.
            CorruptVolumeError: The volume exists and its record cannot be read.
            LayoutError: The directory for it is missing.
            VaultLockedError: It is to be in the vault, which is locked.
            NoSpaceError: There is too little room.
            QemuImgMissingError: It takes qemu-img, and there is none.
            QemuImgError: qemu-img failed.
            DeadlineExceededError: qemu-img hangs.
            ConfinementError: qemu-img cannot be confined as it must.
            InterruptedOperationError: ``cancel`` was set.
        """
        if not request.clear:
            self._backing.check_writable()
        self._backing.check_writable()
        with self._locks.volume(name):
            self._removal.finish(name)  # of a container that had the name
            self._disk_preparation.prepare(
                name, request, cancel=cancel or Cancellation(), progress=progress
            )
        return self.get(name)

    def iter_volumes(self) -> Iterator[VolumeStatus]:
        """Stream every volume by name, damaged ones included."""
        yield from heapq.merge(
            *(kind.statuses() for kind in self._kinds), key=lambda status: status.name
        )
        self._backing.check_open()  # while the vault is locked, nothing in it can be found

    def iter_disks(self) -> Iterator[VolumeStatus]:
        """Stream the disk volumes by name, damaged ones included; asks no containerd."""
        yield from self._disks.statuses()
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
        return self._kind(name).status(name)

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
        self._end_interrupted()
        with self._locks.volume(name):
            return self._kind(name).activate(name)

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
            return self._kind(name).deactivate(name)

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
            removed = [kind.remove(name, force=force) for kind in self._kinds]
            return any(removed)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure a volume; walks the files of a container volume's writable layer.

        A snapshot that is taken or returned to meanwhile makes the numbers those of no moment.

        Raises:
            VolumeNotFoundError: There is none of this name.
            SnapshotNotFoundError: Its snapshot is gone.
        """
        return self._kind(name).usage(name)

    def recover(self) -> list[Recovered]:
        """Finish or undo what killed operations left; idempotent, leaves running work alone.

        Returns:
            What was found and what was done about it.
        """
        self._backing.check_writable()
        ended = list(self._groups.end_interrupted())
        return [*ended, *(found for kind in self._kinds for found in kind.recover())]

    def _each(
        self, act: Callable[[VolumeName], object]
    ) -> Iterator[tuple[VolumeName, CasError | None]]:
        self._backing.check_writable()
        for name in list(heapq.merge(*(kind.names() for kind in self._kinds))):
            try:
                act(name)
            except VolumeNotFoundError:
                continue  # removed meanwhile
            except CasError as error:
                yield name, error
            else:
                yield name, None

    def _kind(self, name: VolumeName) -> VolumeKind:
        for kind in self._kinds:
            if kind.exists(name):
                return kind
        self._backing.check_open()
        raise VolumeNotFoundError(f"there is no volume {name}", name=name)

    def _end_interrupted(self) -> None:
        """End what a kill interrupted in the middle of several volumes; holds no lock."""
        for each in self._groups.end_interrupted():
            _LOGGER.info("group of volumes action=%s object=%s", each.action, each.object)
