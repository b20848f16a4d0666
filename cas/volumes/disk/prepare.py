"""Makes disk volumes.

Steps, each safe to be killed after: an interrupted removal of the same name is finished; a lease;
the disk is written, checked and made durable under a hidden name; its record; one rename, with
which the volume exists. Whatever fails or is killed before the rename leaves nothing that recovery,
or the next prepare, does not remove.
"""

__all__ = ["DiskPreparation", "Earlier"]

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cas.errors import (
    BlobNotFoundError,
    ImageNotFoundError,
    InvalidNameError,
    LayoutError,
    NoSpaceError,
    VolumeConflictError,
)
from cas.fsops.durable import publish, sync_directory
from cas.model.cancellation import Cancellation, check_operation
from cas.model.disk.record import DiskOrigin, DiskRecord, DiskRequest
from cas.model.events import EventKind
from cas.model.layout import DiskPaths
from cas.model.progress import Progress
from cas.model.reference import normalise_docker_name
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.image.catalogue import ImageCatalogue
from cas.store.image.disks import ResolvedDisk, as_digest
from cas.store.leasing import Leasing
from cas.store.space import Space
from cas.volumes.disk.build import BuiltDisk, DiskBuilder
from cas.volumes.disk.examination import DiskExamination
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.records import read_disk_record, write_disk_record
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.disk.replacement import DiskReplacement
from cas.volumes.disk.scan import find_disk
from cas.volumes.disk.work import DiskWork
from cas.volumes.holds import check_not_held
from cas.volumes.scan import require_free
from cas.volumes.undo import Undo

_LOGGER = logging.getLogger(__name__)
_CONFLICT_ADVICE = "use the next generation of the name, or remove the volume first"


@dataclass(frozen=True, slots=True)
class Earlier:
    """Volumes in whose place a disk is made.

    Args:
        freed: Bytes that they give back where the disk will be.
        files: Of those that are disks.
        remove: Takes them away, all or none if one is used; idempotent.
    """

    freed: int
    files: Sequence[Path]
    remove: Callable[[], object]


class DiskPreparation:
    """Prepares disk volumes.

    Args:
        backing: The store.
        leasing: Makes the lease of a preparation.
        images: Finds images.
        removal: Finishes what an interrupted removal left.
        qemu: Works on formats with tables of their own.
    """

    def __init__(
        self,
        backing: Backing,
        leasing: Leasing,
        images: ImageCatalogue,
        removal: DiskRemoval,
        qemu: QemuImg,
    ) -> None:
        self._backing = backing
        self._leasing = leasing
        self._images = images
        self._removal = removal
        examination = DiskExamination(backing.limits, qemu)
        self._builder = DiskBuilder(backing, qemu, examination)
        self._replacement = DiskReplacement(backing, examination)

    def prepare(
        self,
        name: VolumeName,
        request: DiskRequest,
        *,
        cancel: Cancellation,
        progress: Progress,
        earlier: Earlier | None = None,
    ) -> None:
        """See to it that the disk volume exists; the caller holds its lock.

        Idempotent; see :meth:`cas.volumes.creation.VolumeCreation.prepare_disk`.

        Args:
            name: The volume.
            request: What it is to be.
            cancel: Stops the preparation.
            progress: Told of bytes that are copied.
            earlier: What has to go before the volume has its name.
        """
        self._removal.finish(name)
        existing = find_disk(self._backing.layout, name)
        if existing is not None:
            self._require_same(existing, request)
            # The one who made it may have been killed before the last sync.
            sync_directory(existing.directory)
            if earlier is not None:
                earlier.remove()
            return
        paths = self._backing.layout.disk(name, clear=request.clear)
        require_free(self._backing.layout, name, wanted="disk")
        check_not_held(self._backing.layout, name)
        _require_directory(paths)
        with self._leasing.hold("prepare") as lease:
            check_operation()
            resolved = None if request.source is None else self._images.resolve_disk(request.source)
            work = DiskWork(paths, request, lease, Space(self._backing), cancel, progress)
            with Undo() as undo:
                undo.add("the disk", lambda: self._removal.undo_preparation(paths))
                built = self._built(work, resolved, earlier)
                write_disk_record(paths, self._record(name, request, resolved, built))
                with self._builder.admitted(paths, request, built):
                    publish(built.path, paths.file)
        if resolved is not None and as_digest(resolved.image) is None:
            self._images.touch(resolved.image)
        _LOGGER.info("disk volume prepared volume=%s source=%s", name, request.source)
        self._backing.events.publish(EventKind.VOLUME_PREPARED, [str(name)])

    def _built(
        self, work: DiskWork, resolved: ResolvedDisk | None, earlier: Earlier | None
    ) -> BuiltDisk:
        """Build the disk, and see that the earlier generations are gone then.

        If there is no room for it beside them, they go first, once it is certain that it fits.
        """
        self._removal.undo_preparation(work.paths)
        try:
            built = self._builder.build(work, resolved)
        except NoSpaceError:
            if earlier is None:
                raise
            self._removal.undo_preparation(work.paths)
            self._replacement.make_certain(
                work, resolved, freed=earlier.freed, earlier=earlier.files
            )
            _LOGGER.info("room comes from the old volume volume=%s", work.paths.name)
            earlier.remove()
            return self._builder.build(work, resolved)
        if earlier is not None:
            earlier.remove()
        return built

    def _record(
        self,
        name: VolumeName,
        request: DiskRequest,
        resolved: ResolvedDisk | None,
        built: BuiltDisk,
    ) -> DiskRecord:
        origin = None
        if resolved is not None and built.blob is not None:
            origin = resolved.origin(built.blob)
        return DiskRecord(
            name=name,
            origin=origin,
            format=built.format,
            size=request.size,
            read_only=request.read_only,
            created=self._backing.clock(),
        )

    def _require_same(self, paths: DiskPaths, request: DiskRequest) -> None:
        """Return if the volume is what is asked for, as far as anybody knows."""
        difference = ""
        if paths.clear != request.clear:
            difference = "in clear" if paths.clear else "in the vault"
        elif (record := read_disk_record(paths)) is not None:
            difference = self._difference(record, request)
        if difference:
            raise VolumeConflictError(
                f"volume {paths.name} was prepared {difference}; {_CONFLICT_ADVICE}",
                name=paths.name,
                path=paths.file,
            )

    def _difference(self, record: DiskRecord, request: DiskRequest) -> str:
        """Say in what the volume is not what is asked for; empty when it is."""
        if record.read_only != request.read_only:
            return "read-only" if record.read_only else "writable"
        if request.format not in (None, record.format):
            return f"in format {record.format}"
        if record.size != request.size:
            return "without a size" if record.size is None else f"with size {record.size}"
        if record.origin is None:
            return "" if request.source is None else "blank"
        if request.source is None:
            return f"from image {record.origin.image!r}"
        return self._other_origin(record.origin, request.source)

    def _other_origin(self, origin: DiskOrigin, source: str) -> str:
        try:
            manifest = self._images.resolve_disk(source).manifest_digest
        except (ImageNotFoundError, BlobNotFoundError):
            return "" if origin.image in _names(source) else f"from image {origin.image!r}"
        if manifest == origin.manifest_digest:
            return ""
        return f"from manifest {origin.manifest_digest} ({origin.image!r}), not {source!r}"


def _names(source: str) -> set[str]:
    """What a reference may be short for."""
    names = {source}
    with suppress(InvalidNameError):
        names.add(normalise_docker_name(source))
    return names


def _require_directory(paths: DiskPaths) -> None:
    if not paths.directory.is_dir():
        raise LayoutError(
            f"directory {str(paths.directory)!r} is missing; run 'cas layout init'",
            path=paths.directory,
        )
