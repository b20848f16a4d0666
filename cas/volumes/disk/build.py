"""Makes the file of a disk volume under a hidden name; durable, but not yet the volume.

The image is looked at before anything is written: by our own eyes, and in formats with tables by
qemu's. What was compressed or inside a tar is looked at when it is unpacked.
"""

__all__ = ["BuiltDisk", "DiskBuilder"]

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from cas.fsops.draft import DraftFile, allocated_bytes_of
from cas.fsops.durable import remove_file
from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader
from cas.model.disk.plan import DiskPlan, plan_disk
from cas.model.disk.record import DiskRequest
from cas.model.layout import DiskPaths
from cas.store.backing import Backing
from cas.store.image.disks import ResolvedDisk
from cas.store.space import Space
from cas.volumes.disk.admission import DiskAdmission
from cas.volumes.disk.examination import DiskExamination, lend
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.room import bytes_alone
from cas.volumes.disk.source import BlobFile, DiskSource, ImageFile
from cas.volumes.disk.work import DiskWork

_WRITABLE_MODE = 0o660
_READ_ONLY_MODE = 0o440
"""For the group of the directory, whose members hand disks to virtual machines."""
_BLANK_BYTES = 1024 * 1024
"""More than an empty qcow2 of any size takes at first."""


@dataclass(frozen=True, slots=True)
class BuiltDisk:
    """A disk that is complete and durable.

    Args:
        path: Its hidden name.
        format: What it is.
        size: Bytes of the disk in it.
        blob: Where its content was found; None for a blank disk.
    """

    path: Path
    format: DiskFormat
    size: int
    blob: Digest | None


class DiskBuilder:
    """Builds disks.

    Args:
        backing: The store.
        qemu: For formats that have tables of their own.
        examination: Looks at images.
    """

    def __init__(self, backing: Backing, qemu: QemuImg, examination: DiskExamination) -> None:
        self._backing = backing
        self._qemu = qemu
        self._examination = examination
        self._source = DiskSource(backing)
        self._admission = DiskAdmission(backing)
        self._space = Space(backing)

    def build(self, work: DiskWork, resolved: ResolvedDisk | None) -> BuiltDisk:
        """Build one disk. After failure hidden files may be there, for the caller to remove.

        Args:
            work: The disk.
            resolved: Its image; None for a blank disk.

        Raises:
            CasError: See :meth:`cas.volumes.creation.VolumeCreation.prepare_disk`.
        """
        if resolved is None:
            return self._blank(work)
        for layer in resolved.artifact.layers:
            work.lease.pin_blob(layer.digest)
        with ExitStack() as stack:
            blob = self._source.open(resolved.artifact)
            if blob is not None:
                stack.enter_context(blob)
                return self._from_file(work, resolved, blob)
            return self._from_stream(work, resolved)

    def _blank(self, work: DiskWork) -> BuiltDisk:
        plan = plan_disk(DiskHeader(DiskFormat.RAW, 0), work.request)
        self._require_room(work, plan.size, allocated=0)
        with (
            work.reserved(_BLANK_BYTES),
            DraftFile(work.paths.preparing) as draft,
        ):
            if plan.format is DiskFormat.RAW:
                draft.resize(plan.size)
            else:
                lend(draft, self._qemu)
                self._qemu.create(draft, plan.format, plan.size)
            return self._sealed(work, draft, work.paths.preparing, plan, None)

    def _from_file(self, work: DiskWork, resolved: ResolvedDisk, blob: BlobFile) -> BuiltDisk:
        """Copy or convert an image that lies in the store as it is."""
        header = self._examination.examine(blob, resolved, cancel=work.cancel)
        plan = plan_disk(header, work.request)
        self._require_room(work, plan.size, allocated=0)
        if self._backing.limits.verify_disks:
            with work.told(blob.size):
                self._source.verify(resolved.artifact, work.advance)
        allocated = allocated_bytes_of(blob.fileno())
        path = work.paths.preparing
        with DraftFile(path) as draft:
            if plan.converts or not draft.clone(blob.fileno()):
                with work.reserved(allocated) as promise, work.told(blob.size):
                    if plan.converts:
                        self._convert(work, blob, draft, (header.format, plan))
                    else:
                        draft.copy(blob.fileno(), work.meter(promise, draft))
            self._grow(draft, plan)
            digest = resolved.artifact.layers[0].digest
            return self._sealed(work, draft, path, plan, digest)

    def _from_stream(self, work: DiskWork, resolved: ResolvedDisk) -> BuiltDisk:
        """Unpack an image, and convert it then if that was asked for."""
        with DraftFile(work.paths.preparing) as draft:
            size, expected = self._source.sizes(resolved.artifact)
            with work.reserved(expected) as promise, work.told(size):
                meter = work.meter(promise, draft)
                digest = self._source.unpack(resolved.artifact, draft, meter)
            header = self._examination.examine(draft, resolved, cancel=work.cancel)
            plan = plan_disk(header, work.request)
            self._require_room(work, plan.size, allocated=draft.allocated)
            if not plan.converts:
                self._grow(draft, plan)
                return self._sealed(work, draft, work.paths.preparing, plan, digest)
            with (
                work.reserved(allocated_bytes_of(draft.fileno())),
                work.told(draft.size),
                DraftFile(work.paths.reformatting) as target,
            ):
                lend(draft, self._qemu)
                self._convert(work, draft, target, (header.format, plan))
                self._grow(target, plan)
                built = self._sealed(work, target, work.paths.reformatting, plan, digest)
        remove_file(work.paths.preparing)
        return built

    def admitted(
        self, paths: DiskPaths, request: DiskRequest, built: BuiltDisk
    ) -> AbstractContextManager[None]:
        """Let a disk get its name; raises as :meth:`DiskAdmission.require` on entry."""
        own = bytes_alone(built.path)
        return self._admission.admitted(paths, request, built.size, allocated=own)

    def _require_room(self, work: DiskWork, size: int, *, allocated: int) -> None:
        self._admission.require(work.paths, work.request, size, allocated=allocated)

    def _convert(
        self,
        work: DiskWork,
        source: ImageFile,
        target: DraftFile,
        what: tuple[DiskFormat, DiskPlan],
    ) -> None:
        before, plan = what
        done = 0.0

        def percent(now: float) -> None:
            nonlocal done
            step = int(max(0.0, now - done) * source.size / 100)
            done = max(done, now)
            work.advance(step)

        lend(target, self._qemu)
        self._qemu.convert(
            source,
            target,
            formats=(before, plan.format),
            size=plan.size,
            cancel=work.cancel,
            percent=percent,
        )

    def _grow(self, draft: DraftFile, plan: DiskPlan) -> None:
        if not plan.grows:
            return
        if plan.format is DiskFormat.RAW:
            draft.resize(plan.size)
        else:
            lend(draft, self._qemu)
            self._qemu.resize(draft, plan.format, plan.size)

    def _sealed(
        self,
        work: DiskWork,
        draft: DraftFile,
        path: Path,
        plan: DiskPlan,
        blob: Digest | None,
    ) -> BuiltDisk:
        work.cancel.check()
        draft.seal(mode=_READ_ONLY_MODE if work.request.read_only else _WRITABLE_MODE)
        return BuiltDisk(path, plan.format, plan.size, blob)
