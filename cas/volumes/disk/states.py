"""States of a disk that are kept beside its present content, each by a number of its own.

Callers hold the volume's lock, and nobody has the disk open. Every method may be repeated, also
after a kill in the middle of it: it then ends what was begun.
"""

__all__ = ["RESERVED_BYTES", "CopiedStates", "DiskStates", "Qcow2States"]

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cas.errors import (
    CorruptVolumeError,
    DiskImageError,
    InUseError,
    QemuImgError,
    VolumeConflictError,
)
from cas.fsops.draft import DraftFile
from cas.fsops.durable import exchange, remove_file, sync_directory
from cas.fsops.lent import LentFile
from cas.fsops.sole_use import open_to_read
from cas.fsops.translation import translated
from cas.model.disk.format import DiskFormat
from cas.model.layout import DiskPaths
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.unused import require_unlocked, unused

RESERVED_BYTES = 4 * 1024 * 1024
"""More than it takes to keep a state whose data is shared: a table of the disk's tables."""

_COPY_MODE = 0o600


class DiskStates(Protocol):
    """How disks of one format keep their states."""

    def repair(self, *, killed: bool) -> None:
        """Give back what belongs to no state, left by a step that failed or was killed."""

    def keep(self, number: int) -> None:
        """Keep the present content, durably and without a copy of the data.

        Raises:
            VolumeConflictError: That is impossible here.
            NoSpaceError: No room.
        """

    def return_to(self, number: int) -> None:
        """Make the disk what it was, durably. What it is now is lost.

        Raises:
            CorruptVolumeError: There is no such state.
            InUseError: Somebody has opened the disk, which is as it was.
        """

    def drop(self, number: int) -> None:
        """Forget a state, if it is there, and give its room back."""

    def has(self, number: int) -> bool:
        """Whether there is such a state."""


class Qcow2States:
    """States inside the file of a qcow2 disk; qemu-img orders its writes so that a kill is no harm.

    Snapshots that the image brought along are left alone.

    Args:
        paths: Of the disk.
        qemu: Works on it.
        token: Tells its states from others in the file.
    """

    def __init__(self, paths: DiskPaths, qemu: QemuImg, token: str) -> None:
        self._paths = paths
        self._qemu = qemu
        self._token = token

    def repair(self, *, killed: bool) -> None:
        """Free the clusters of nobody, and take the file back that a killed process has lent."""
        with self._lent(lost=killed) as file:
            self._qemu.free_leaks(file, DiskFormat.QCOW2, _most(file))

    def keep(self, number: int) -> None:
        """Keep the present content."""
        with self._lent() as file:
            self._qemu.take_snapshot(file, DiskFormat.QCOW2, self._tag(number), _most(file))

    def return_to(self, number: int) -> None:
        """Make the disk what it was."""
        tag = self._tag(number)
        with self._lent() as file:
            try:
                self._qemu.return_to_snapshot(file, DiskFormat.QCOW2, tag, _most(file))
            except QemuImgError as error:
                if self._is_in(file, number):
                    raise
                raise _lost(self._paths, number) from error

    def drop(self, number: int) -> None:
        """Forget a state."""
        with self._lent() as file:
            try:
                self._qemu.drop_snapshot(file, DiskFormat.QCOW2, self._tag(number), _most(file))
            except QemuImgError:
                if self._is_in(file, number):
                    raise

    def has(self, number: int) -> bool:
        """Whether the image has it."""
        with self._lent() as file:
            return self._is_in(file, number)

    def _is_in(self, file: LentFile, number: int) -> bool:
        return self._tag(number) in self._qemu.tags(file, DiskFormat.QCOW2)

    def _tag(self, number: int) -> str:
        return f"cas-{self._token}-{number}"

    @contextmanager
    def _lent(self, *, lost: bool = False) -> Iterator[LentFile]:
        to, path = self._qemu.account, self._paths.file
        with LentFile(path, user=to.user, group=to.group, lost=lost) as file:
            try:
                yield file
            except (DiskImageError, QemuImgError):
                require_unlocked(self._paths)  # qemu-img fails at a machine's lock
                raise


class CopiedStates:
    """States as files that share their blocks with the disk, where the file system can do that.

    Args:
        paths: Of the disk.
    """

    def __init__(self, paths: DiskPaths) -> None:
        self._paths = paths

    def repair(self, *, killed: bool) -> None:  # noqa: ARG002 - one looks like the other
        """Remove what was to become the disk."""
        remove_file(self._paths.preparing)

    def keep(self, number: int) -> None:
        """Keep the present content."""
        path = self._paths.snapshot_copy(number)
        remove_file(path)
        try:
            _share(self._paths, self._paths.file, path)
            sync_directory(path.parent)
        except BaseException:
            remove_file(path)
            raise

    def return_to(self, number: int) -> None:
        """Make the disk what it was, by one exchange of names."""
        path = self._paths.snapshot_copy(number)
        if not self.has(number):
            raise _lost(self._paths, number)
        remove_file(self._paths.preparing)
        with _opened(self._paths.file) as now:
            _share(self._paths, path, self._paths.preparing, model=now)
        with unused(self._paths) as require_nobody_waits:
            exchange(self._paths.preparing, self._paths.file)
            try:
                require_nobody_waits()
            except InUseError:
                exchange(self._paths.preparing, self._paths.file)
                raise
        remove_file(self._paths.preparing)

    def drop(self, number: int) -> None:
        """Forget a state."""
        if self._paths.snapshots.is_dir():
            remove_file(self._paths.snapshot_copy(number))

    def has(self, number: int) -> bool:
        """Whether its file is there."""
        path = self._paths.snapshot_copy(number)
        with translated("inspect", path):
            return path.is_file() and not path.is_symlink()


def _share(paths: DiskPaths, source: Path, target: Path, *, model: int | None = None) -> None:
    with _opened(source) as descriptor, DraftFile(target) as draft:
        if not draft.clone(descriptor):
            raise VolumeConflictError(
                f"disk volume {paths.name} is raw, and the file system of "
                f"{str(paths.directory)!r} cannot let two files share blocks, so that a "
                "snapshot would be a full copy; prepare the volume as qcow2 (--format qcow2), "
                "or have the directory on xfs or btrfs",
                name=paths.name,
                path=paths.file,
            )
        if model is None:
            draft.seal(mode=_COPY_MODE)
        else:
            draft.seal_like(model)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with translated("open", path):
        descriptor = open_to_read(path)
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _most(file: LentFile) -> int:
    return file.size + RESERVED_BYTES


def _lost(paths: DiskPaths, number: int) -> CorruptVolumeError:
    return CorruptVolumeError(
        f"state {number} of disk volume {paths.name} is gone, which a snapshot of it names; "
        "remove that snapshot and use another",
        name=paths.name,
        number=number,
    )
