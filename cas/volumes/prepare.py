"""Makes container volumes out of images.

Steps, each safe to be killed after: the volume's lock; an interrupted removal of the same name is
finished; the image's layers are unpacked, under a lease, unless they stand; a hidden directory
with everything in it; the writable snapshot, rooted, so that no collection takes it; both are
synced; one rename, with which the volume exists. Whatever fails or is killed before the rename
leaves nothing that recovery, or the next prepare, does not remove. Does not mount.
"""

__all__ = ["Preparation"]

import logging
from contextlib import suppress
from pathlib import Path

from cas.errors import (
    AlreadyExistsError,
    CorruptVolumeError,
    ImageNotFoundError,
    InvalidNameError,
    MalformedDocumentError,
    SnapshotNotFoundError,
    VolumeConflictError,
)
from cas.fsops.building import build_directory, sync_tree
from cas.fsops.durable import publish, sync_directory
from cas.fsops.trees import remove_tree
from cas.model.cancellation import Cancellation
from cas.model.digest import ChainID
from cas.model.disk.format import is_disk_layer
from cas.model.events import EventKind
from cas.model.labels import VOLUME, VOLUMES_DIRECTORY
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import Mount
from cas.model.reference import normalise_docker_name
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.image.catalogue import ImageCatalogue
from cas.store.image.resolution import ResolvedImage
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Lease, Leasing
from cas.volumes.holds import check_not_held
from cas.volumes.own_snapshots import labels_of
from cas.volumes.records import encode_files, read_record
from cas.volumes.removal import Removal
from cas.volumes.scan import require_free, stands
from cas.volumes.settling import sync_new
from cas.volumes.undo import Undo

_LOGGER = logging.getLogger(__name__)


class Preparation:
    """Prepares volumes.

    Args:
        backing: The store.
        leasing: Makes the lease of a preparation.
        images: Finds and reads images.
        unpack: Makes snapshots of their layers.
        removal: Finishes what an interrupted removal left.
    """

    def __init__(
        self,
        backing: Backing,
        leasing: Leasing,
        images: ImageCatalogue,
        unpack: Unpack,
        removal: Removal,
    ) -> None:
        self._backing = backing
        self._leasing = leasing
        self._images = images
        self._unpack = unpack
        self._removal = removal

    def prepare(
        self,
        name: VolumeName,
        image: str,
        *,
        read_only: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeRecord:
        """See to it that the volume exists, made from ``image``; the caller holds its lock.

        Idempotent: a volume of the same image is left alone, its data too, even when the image is
        gone by now. When it returns, the volume is on disk. After failure there is no volume and
        no snapshot of it; layers that were unpacked stay as the image's.

        Args:
            name: The volume.
            image: Reference of the image.
            read_only: A view of the image instead of a writable layer.
            cancel: Stops the work.
            progress: Told about layers that are unpacked.

        Raises:
            VolumeConflictError: The volume was made from something else, or something else than a
                container volume has its name.
            CorruptVolumeError: The volume exists and cannot be used.
            VolumeHeldError: Its old data was not converted yet.
            AlreadyExistsError: A snapshot has the volume's key and is not ours.
            ImageNotFoundError: There is no such image.
        """
        self._removal.finish(name)
        if stands(self._backing.layout, name):
            return self._existing(name, image, read_only=read_only)
        self.require_makeable(name)
        self._backing.check_writable()
        resolved = self._images.resolve(image)
        _require_container(resolved)
        record = self._new_record(name, resolved, read_only=read_only)
        if not self._build_on_standing(record, resolved):
            with self._leasing.hold("prepare") as lease:
                self._unpack.unpack(resolved, lease, cancel=cancel, progress=progress)
                if cancel is not None:
                    cancel.check()
                self._build(record, resolved, lease)
        self._images.touch(resolved.record.name)
        _LOGGER.info("volume prepared volume=%s image=%s", name, record.image)
        self._backing.events.publish(EventKind.VOLUME_PREPARED, [str(name)])
        return record

    def require_makeable(self, name: VolumeName) -> None:
        """Return if nothing but a container volume stands in the way of a volume of this name.

        Raises:
            VolumeConflictError: Something else has its name.
            VolumeHeldError: Its old data was not converted yet.
        """
        if not stands(self._backing.layout, name):
            require_free(self._backing.layout, name, wanted="container")
            check_not_held(self._backing.layout, name)

    def _new_record(
        self, name: VolumeName, resolved: ResolvedImage, *, read_only: bool
    ) -> VolumeRecord:
        return VolumeRecord(
            name=name,
            image=resolved.record.name,
            root_digest=resolved.root.digest,
            manifest_digest=resolved.manifest.digest,
            chain_id=resolved.layers[-1].chain_id if resolved.layers else None,
            snapshot_key=str(name),
            snapshotter=self._backing.snapshotter,
            read_only=read_only,
            created=self._backing.clock(),
        )

    def _build_on_standing(self, record: VolumeRecord, resolved: ResolvedImage) -> bool:
        """Build on layers that stand already; False if they do not.

        Needs no lease, whose making and dropping cost as much as all the rest: nothing but the
        snapshot is made, which is rooted from its first moment and keeps the layers below it.
        """
        if not self._unpack.is_unpacked(resolved):
            return False
        try:
            self._build(record, resolved, None)
        except SnapshotNotFoundError:
            return False  # collected between the look and the use
        return True

    def _existing(self, name: VolumeName, image: str, *, read_only: bool) -> VolumeRecord:
        record = read_record(self._backing.layout.volume(name), name)
        problem = self._difference(record, image, read_only=read_only)
        if problem:
            raise VolumeConflictError(
                f"volume {name} was prepared {problem}; use the next generation of the name, or "
                "remove the volume first",
                name=name,
                expected=image,
                actual=record.image,
            )
        try:
            self._backing.snapshots.stat(record.snapshot_key)
        except SnapshotNotFoundError as error:
            raise CorruptVolumeError(
                f"snapshot {record.snapshot_key!r} of volume {name} is gone; remove the volume "
                "and prepare it again",
                name=name,
                snapshot=record.snapshot_key,
            ) from error
        # The one who made the directory may have been killed before the last sync.
        sync_directory(self._backing.layout.volumes)
        return record

    def _difference(self, record: VolumeRecord, image: str, *, read_only: bool) -> str:
        """Say in what the volume is not what is asked for; empty when it is."""
        if record.read_only != read_only:
            return "read-only" if record.read_only else "writable"
        if record.converted:
            return ""  # nobody knows its image's name, and its data counts
        try:
            found = self._images.get(image)
        except ImageNotFoundError:
            return "" if record.image in _names(image) else f"from image {record.image!r}"
        if found.name != record.image:
            return f"from image {record.image!r}"
        if found.target.digest == record.root_digest:
            return ""
        if self._images.resolve(image).manifest.digest == record.manifest_digest:
            return ""
        return f"from manifest {record.manifest_digest}, which {image!r} no longer names"

    def _build(self, record: VolumeRecord, resolved: ResolvedImage, lease: Lease | None) -> None:
        layout = self._backing.layout
        building, final = layout.volume_preparing(record.name), layout.volume(record.name)
        _remove_if_there(building)
        with Undo() as undo:
            undo.add("the directory", lambda: _remove_if_there(building))
            build_directory(
                building,
                files=encode_files(record, resolved.config_raw),
                directories={"rootfs": 0o755},
            )
            undo.add("the snapshot", lambda: self._drop_snapshot(record))
            mounts = self._make_snapshot(record, lease)
            sync_tree(building)
            sync_new(mounts)
            publish(building, final)

    def _make_snapshot(self, record: VolumeRecord, lease: Lease | None) -> list[Mount]:
        try:
            return self._add_snapshot(record, lease)
        except AlreadyExistsError as error:
            # There is no volume of this name: ours are the remains of a killed preparation.
            if not self._is_ours(record):
                raise AlreadyExistsError(
                    f"snapshot {record.snapshot_key!r} exists and belongs to no volume in "
                    f"{str(self._backing.layout.volumes)!r}; remove it, or use another name",
                    name=record.name,
                    snapshot=record.snapshot_key,
                ) from error
            self._drop_snapshot(record)
        return self._add_snapshot(record, lease)

    def _add_snapshot(self, record: VolumeRecord, lease: Lease | None) -> list[Mount]:
        snapshots = self._backing.snapshots
        make = snapshots.view if record.read_only else snapshots.prepare
        held = None if lease is None else lease.id
        labels = labels_of(self._backing, record)
        return make(record.snapshot_key, _parent(record.chain_id), held, labels)

    def _is_ours(self, record: VolumeRecord) -> bool:
        try:
            labels = self._backing.snapshots.stat(record.snapshot_key).labels
        except SnapshotNotFoundError:
            return True
        wanted = labels_of(self._backing, record)
        return all(labels.get(key) == wanted[key] for key in (VOLUME, VOLUMES_DIRECTORY))

    def _drop_snapshot(self, record: VolumeRecord) -> None:
        # A failure after the rename leaves a complete volume, which keeps its snapshot.
        if not stands(self._backing.layout, record.name) and self._is_ours(record):
            self._backing.snapshots.remove(record.snapshot_key)


def _require_container(resolved: ResolvedImage) -> None:
    """Refuse a disk image, whose disk is no layer, so that the volume would be empty."""
    disks = [each for each in resolved.manifest_document.layers if is_disk_layer(each.media_type)]
    if disks and not resolved.layers:
        raise MalformedDocumentError(
            f"image {resolved.record.name!r} is a disk ({disks[0].media_type}) and no container; "
            "prepare it with --disk",
            reference=resolved.record.name,
        )


def _names(image: str) -> set[str]:
    """What a reference may be short for."""
    names = {image}
    with suppress(InvalidNameError):
        names.add(normalise_docker_name(image))
    return names


def _parent(chain_id: ChainID | None) -> str:
    return "" if chain_id is None else str(chain_id)


def _remove_if_there(directory: Path) -> None:
    if directory.exists():
        remove_tree(directory)
