"""Makes volumes, in the place of their earlier generations if that is asked for."""

__all__ = ["VolumeCreation"]

from functools import partial
from pathlib import Path

from cas.fsops.translation import translated
from cas.model.cancellation import Cancellation
from cas.model.disk.record import DiskRequest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.image.catalogue import ImageCatalogue
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.volumes.disk.prepare import DiskPreparation, Earlier
from cas.volumes.generations import Generations
from cas.volumes.kinds import VolumeKinds
from cas.volumes.prepare import Preparation
from cas.volumes.replacement import Replacement
from cas.volumes.snapshot_groups import SnapshotGroups
from cas.volumes.status import VolumeState, VolumeStatus


class VolumeCreation:
    """Makes volumes of one store.

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
        kinds: VolumeKinds,
    ) -> None:
        self._backing = backing
        self._locks = locks
        self._kinds = kinds
        self._preparation = Preparation(backing, leasing, images, unpack, kinds.removal)
        self._disk_preparation = DiskPreparation(
            backing, leasing, images, kinds.disk_removal, kinds.qemu
        )
        self._replacement = Replacement(backing, leasing, images, unpack)
        self._generations = Generations(backing, leasing, kinds)
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
        self._groups.settle()
        names = self._generations.before(name) if replace else []
        with self._locks.volumes([name, *names]):
            earlier = self._generations.settled(names) if replace else []
            self._kinds.disk_removal.finish(name)  # of a disk that had the name
            stood = self._kinds.containers.exists(name)
            if stood:
                self._kinds.containers.usable(name)
            elif earlier:
                self._preparation.require_makeable(name)
                self._make_certain(image, earlier, cancel=cancel, progress=progress)
                self._generations.remove(earlier)
            record = self._preparation.prepare(
                name, image, read_only=read_only, cancel=cancel, progress=progress
            )
            if stood:
                self._generations.remove(earlier)
            if activate:
                self._groups.let_go(name)
                record = self._kinds.activation.used(record)
                rootfs = self._kinds.activation.activate(record)
                return VolumeStatus(name, VolumeState.ACTIVE, rootfs, record)
        return (
            self._kinds.of(name).status(name) if stood else self._kinds.containers.inactive(record)
        )

    def _make_certain(
        self,
        image: str,
        earlier: list[VolumeName],
        *,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        freed = sum(map(self._generations.size, earlier))
        self._replacement.make_certain(image, freed, cancel=cancel, progress=progress)

    def prepare_disk(
        self,
        name: VolumeName,
        request: DiskRequest,
        *,
        replace: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a disk volume; idempotent, existing data stays untouched.

        One of the same name, place, origin, format and size is left alone, also when the image is
        gone by now, and so is one that we did not make and know nothing of. After failure there is
        no volume. With ``replace`` the generations before are as they were after a failure that
        comes before the disk is made; or, where only their room makes it possible to make it,
        before it is certain that it can be made then.

        Args:
            name: The volume.
            request: What it is to be.
            replace: Remove the earlier generations of the volume, with their data and snapshots.
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
            InUseError: With ``replace``: an earlier generation is in use; nothing is removed.
            QemuImgMissingError: It takes qemu-img, and there is none.
            QemuImgError: qemu-img failed.
            DeadlineExceededError: qemu-img hangs.
            ConfinementError: qemu-img cannot be confined as it must.
            InterruptedOperationError: ``cancel`` was set.
        """
        self._backing.check_writable()
        self._groups.settle()
        names = self._generations.before(name) if replace else []
        with self._locks.volumes([name, *names]):
            earlier = self._generations.settled(names) if replace else []
            self._kinds.removal.finish(name)  # of a container that had the name
            self._disk_preparation.prepare(
                name,
                request,
                cancel=cancel or Cancellation(),
                progress=progress,
                earlier=self._in_place_of(earlier, request) if earlier else None,
            )
        return self._kinds.of(name).status(name)

    def _in_place_of(self, names: list[VolumeName], request: DiskRequest) -> Earlier:
        target = self._backing.layout.disk_directory(clear=request.clear)
        files = [self._kinds.of(each).status(each).rootfs for each in names]
        device = _device(target)
        freed = sum(
            self._generations.size(each)
            for each, path in zip(names, files, strict=True)
            if _device(path.parent) == device
        )
        return Earlier(freed, files, partial(self._generations.remove, names))


def _device(directory: Path) -> int:
    with translated("inspect", directory):
        return directory.stat().st_dev
