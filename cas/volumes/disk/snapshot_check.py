"""What is wrong with the snapshots of disks, for whoever checks the store; changes nothing."""

__all__ = ["DiskSnapshotProblem", "iter_snapshot_problems"]

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cas.errors import (
    CorruptVolumeError,
    DeniedError,
    LockTimeoutError,
    StorageError,
    VaultLockedError,
)
from cas.fsops.translation import translated
from cas.model.disk.format import DiskFormat
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks
from cas.volumes.disk.histories import has_history, is_settled, read_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.scan import is_disk, iter_disks
from cas.volumes.entries import list_entries


@dataclass(frozen=True, slots=True)
class DiskSnapshotProblem:
    """Something is wrong.

    Args:
        name: The volume.
        lost: The snapshot whose copy of the disk is gone.
        stray: A file in the directory of its snapshots that belongs to none.
        unreadable: Why they could not be looked at. With none of these a change was interrupted.
    """

    name: VolumeName
    lost: str | None = None
    stray: Path | None = None
    unreadable: str | None = None


def iter_snapshot_problems(place: DiskPlace, locks: Locks) -> Iterator[DiskSnapshotProblem]:
    """Look at the snapshots of every disk that nobody works on; damaged volumes are left out.

    What is inside a qcow2 is not looked at.
    """
    for paths in iter_disks(place.layout):
        yield from _found(place, locks, paths)


def _found(place: DiskPlace, locks: Locks, paths: DiskPaths) -> list[DiskSnapshotProblem]:
    found: list[DiskSnapshotProblem] = []
    try:
        if has_history(paths):
            with (
                suppress(LockTimeoutError, CorruptVolumeError),
                locks.volume(paths.name, timeout_seconds=0),
            ):
                found.extend(_problems(place, paths))
    except (DeniedError, StorageError, VaultLockedError) as error:
        found.append(DiskSnapshotProblem(paths.name, unreadable=error.message))
    return found


def _problems(place: DiskPlace, paths: DiskPaths) -> Iterator[DiskSnapshotProblem]:
    if not is_disk(paths):
        return
    copies = _copies(place, paths)
    if not is_settled(paths):
        yield DiskSnapshotProblem(paths.name)
    else:
        yield from _strays(paths, {paths.history, *copies})
    for copy, snapshot in copies.items():
        with translated("inspect", copy):
            is_there = copy.is_file()
        if not is_there:
            yield DiskSnapshotProblem(paths.name, lost=snapshot)


def _copies(place: DiskPlace, paths: DiskPaths) -> dict[Path, str]:
    """Give the files that the snapshots of a disk have beside it, and which has which."""
    if look_at_disk(paths, place.limits).format is not DiskFormat.RAW:
        return {}
    return {paths.snapshot_copy(each.number): each.name for each in read_history(paths).snapshots}


def _strays(paths: DiskPaths, known: Collection[Path]) -> Iterator[DiskSnapshotProblem]:
    for entry, _ in list_entries(paths.snapshots):
        path = paths.snapshots / entry
        if path not in known:
            yield DiskSnapshotProblem(paths.name, stray=path)
