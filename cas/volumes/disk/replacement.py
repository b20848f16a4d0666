"""Whether a disk can certainly be made once earlier generations have given up their room.

Asked only where there is no room to make it before they go. The image is read to its end, compared
with its digests, unpacked to nowhere and looked at; the room is reckoned. Then nothing can fail any
more but a conversion, and others who take the room.
"""

__all__ = ["DiskReplacement"]

from collections.abc import Collection
from pathlib import Path

from cas.errors import NoSpaceError
from cas.fsops.draft import allocated_bytes_of
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader
from cas.model.disk.plan import DiskPlan, plan_disk
from cas.store.backing import Backing
from cas.store.image.disks import ResolvedDisk
from cas.store.space import Space
from cas.volumes.disk.examination import DiskExamination
from cas.volumes.disk.looking import pending_growth
from cas.volumes.disk.source import DiskSource
from cas.volumes.disk.work import DiskWork

_HEAD_BYTES = 4 * 1024 * 1024
"""Of an image that is unpacked to nowhere: the headers of every format that has them in front."""


class DiskReplacement:
    """Makes certain.

    Args:
        backing: The store.
        examination: Looks at images.
    """

    def __init__(self, backing: Backing, examination: DiskExamination) -> None:
        self._backing = backing
        self._examination = examination
        self._source = DiskSource(backing)

    def make_certain(
        self,
        work: DiskWork,
        resolved: ResolvedDisk | None,
        *,
        freed: int,
        earlier: Collection[Path],
    ) -> None:
        """Return if the disk can be made with ``freed`` bytes more room.

        Args:
            work: The disk.
            resolved: Its image; None for a blank disk.
            freed: Bytes that the earlier generations give back there.
            earlier: Their files, which do not grow any more.

        Raises:
            NoSpaceError: There would be too little room all the same.
            CasError: The image cannot be used, as in making the disk.
        """
        plan, written = self._foreseen(work, resolved)
        limits, directory = self._backing.limits, work.paths.directory
        needed = written
        if not limits.thin_disks and not work.request.read_only:
            others = pending_growth(self._backing.layout, limits, directory, besides=earlier)
            needed = max(written, plan.size) + others
        missing = needed - freed - Space(self._backing).balance(at=directory)
        if missing > 0:
            raise NoSpaceError(
                f"volume {work.paths.name} needs {needed} bytes with what other disks may still "
                f"take, {missing} more than {str(directory)!r} can give when the earlier "
                "generations are gone; they stay; make room or ask for less",
                path=directory,
                needed=needed,
                missing=missing,
            )

    def _foreseen(self, work: DiskWork, resolved: ResolvedDisk | None) -> tuple[DiskPlan, int]:
        """Give what the disk will be, and the bytes that its making writes at most."""
        if resolved is None:
            return plan_disk(DiskHeader(DiskFormat.RAW, 0), work.request), 0
        blob = self._source.open(resolved.artifact)
        if blob is None:
            content = self._measured(work, resolved)
            plan = plan_disk(self._examination.read_header(content, resolved), work.request)
            return plan, content.size * (2 if plan.converts else 1)
        with blob:
            header = self._examination.examine(blob, resolved, cancel=work.cancel)
            with work.told(blob.size):
                self._source.verify(resolved.artifact, work.advance)
            return plan_disk(header, work.request), allocated_bytes_of(blob.fileno())

    def _measured(self, work: DiskWork, resolved: ResolvedDisk) -> "_Nowhere":
        content = _Nowhere()
        size, _ = self._source.sizes(resolved.artifact)
        with work.told(size):
            self._source.unpack(resolved.artifact, content, work.advance)
        return content


class _Nowhere:
    """Takes an image that is unpacked, and keeps its beginning and its size."""

    def __init__(self) -> None:
        self.size = 0
        self._head = bytearray()

    def append(self, data: bytes) -> None:
        """Take the next bytes."""
        self._head += data[: max(0, _HEAD_BYTES - len(self._head))]
        self.size += len(data)

    def finish_appending(self) -> None:
        """Nothing: the size is known."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Give bytes of the beginning."""
        return bytes(self._head[offset : offset + size])
