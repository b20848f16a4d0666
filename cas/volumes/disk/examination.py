"""Looks at disk images before they are believed, with two pairs of eyes that must see the same."""

__all__ = ["DiskExamination", "lend"]

from cas.errors import DiskImageError
from cas.fsops.draft import DraftFile
from cas.model.cancellation import Cancellation
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader, read_disk_header
from cas.model.limits import Limits
from cas.store.image.disks import ResolvedDisk
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.source import ImageContent, ImageFile

_WITH_TABLES = frozenset({DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VHDX})


class DiskExamination:
    """Examines images.

    Args:
        limits: How large a disk may be.
        qemu: Reads formats that have tables of their own.
    """

    def __init__(self, limits: Limits, qemu: QemuImg) -> None:
        self._limits = limits
        self._qemu = qemu

    def read_header(self, image: ImageContent, resolved: ResolvedDisk) -> DiskHeader:
        """Look with our own eyes only: at a few pieces of the content.

        Raises:
            DiskFormatError: It is something else than it is said to be.
            DiskImageError: It is not valid, or refers to other files.
            LimitExceededError: The disk in it is larger than allowed.
        """
        return read_disk_header(
            image.read_at,
            image.size,
            self._limits,
            claimed=resolved.artifact.claimed,
            what=_called(resolved),
        )

    def examine(
        self, image: ImageFile, resolved: ResolvedDisk, *, cancel: Cancellation
    ) -> DiskHeader:
        """Look with qemu's eyes as well, to the ends of the tables; raises as :meth:`read_header`.

        Raises:
            QemuImgMissingError: It takes qemu-img, and there is none.
            DeadlineExceededError: qemu-img hangs.
        """
        header = self.read_header(image, resolved)
        if header.format in _WITH_TABLES:
            if isinstance(image, DraftFile):
                lend(image, self._qemu)
            seen = self._qemu.virtual_size(image, header.format, cancel=cancel)
            if seen != header.virtual_size:
                raise DiskImageError(
                    f"{_called(resolved)} says in its header that it holds {header.virtual_size} "
                    f"bytes, and qemu finds {seen}; it is damaged or forged",
                    expected=header.virtual_size,
                    actual=seen,
                )
            self._qemu.check(image, header.format, cancel=cancel)
        return header


def lend(draft: DraftFile, qemu: QemuImg) -> None:
    """Let qemu-img open the file, until it is sealed."""
    account = qemu.account
    draft.give_to(account.user, account.group)


def _called(resolved: ResolvedDisk) -> str:
    return f"disk image {resolved.image!r}"
