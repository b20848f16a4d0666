"""What a disk volume is right now, and how much it may still grow; changes nothing."""

__all__ = ["look_at_disk", "pending_growth"]

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from cas.errors import CasError, CorruptVolumeError
from cas.fsops.draft import allocated_bytes_of
from cas.fsops.sole_use import open_to_read
from cas.fsops.translation import translated
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader, read_disk_header
from cas.model.disk.history import MAX_DISK_SNAPSHOTS
from cas.model.disk.record import DiskRecord
from cas.model.layout import DiskPaths, Layout
from cas.model.limits import Limits
from cas.volumes.disk.histories import read_history
from cas.volumes.disk.records import read_disk_record
from cas.volumes.disk.room import bytes_alone
from cas.volumes.disk.scan import iter_disks
from cas.volumes.status import DiskStatus

_OWN_SNAPSHOTS = MAX_DISK_SNAPSHOTS + 1
"""And the state that a rollback, or a snapshot that comes to nothing, keeps meanwhile."""
_TELLS_NOTHING = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose whole content is the guest's, so that nothing in it is believed."""


def look_at_disk(paths: DiskPaths, limits: Limits) -> DiskStatus:
    """Look at a disk volume that exists.

    Raises:
        CorruptVolumeError: Its record or its history cannot be read, or it is not of the format
            that the record says.
        StorageError: It cannot be read, or is gone.
    """
    record = read_disk_record(paths)
    with translated("open", paths.file):
        descriptor = open_to_read(paths.file)
    try:
        with translated("read", paths.file):
            header = _header(paths, record, descriptor, limits)
            allocated = allocated_bytes_of(descriptor)
    finally:
        os.close(descriptor)
    return DiskStatus(
        path=paths.file,
        clear=paths.clear,
        format=header.format,
        virtual_size=header.virtual_size,
        allocated=allocated,
        record=record,
        snapshots=len(read_history(paths).snapshots),
    )


def _header(
    paths: DiskPaths, record: DiskRecord | None, descriptor: int, limits: Limits
) -> DiskHeader:
    size = os.fstat(descriptor).st_size
    if record is not None and record.format in _TELLS_NOTHING:
        return DiskHeader(record.format, size)
    try:
        return read_disk_header(
            lambda offset, length: os.pread(descriptor, length, offset),
            size,
            limits,
            claimed=None if record is None else record.format,
            what=f"disk volume {paths.name}",
            own_snapshots=_OWN_SNAPSHOTS,
        )
    except CasError as error:
        raise CorruptVolumeError(
            f"{error.message}; remove the volume and prepare it again",
            name=paths.name,
            path=paths.file,
        ) from error


def pending_growth(
    layout: Layout, limits: Limits, directory: Path, *, besides: Collection[Path] = ()
) -> int:
    """Bytes that the disk volumes on a file system may still come to take by being written to.

    Args:
        layout: Where the volumes are.
        limits: What a disk may be.
        directory: On the file system that is asked for.
        besides: Files of disks that are left out.
    """
    with translated("inspect", directory):
        device = directory.stat().st_dev
    return sum(
        max(0, disk.virtual_size - own)
        for disk, own in _readable(layout, limits)
        if disk.path not in besides and _grows(disk) and _is_on(disk, device)
    )


def _readable(layout: Layout, limits: Limits) -> Iterator[tuple[DiskStatus, int]]:
    for paths in iter_disks(layout):
        try:
            disk = look_at_disk(paths, limits)
            yield disk, _own_bytes(paths, disk)
        except CasError:
            continue  # damaged, which listing and checking report, or gone by now


def _own_bytes(paths: DiskPaths, disk: DiskStatus) -> int:
    """What it will not take a second time: what others have, or a snapshot in it, is written anew.

    Of a qcow2 with snapshots that is what it has taken since the last one.
    """
    kept = 0
    if disk.snapshots and disk.format is DiskFormat.QCOW2:
        kept = read_history(paths).snapshots[-1].allocated
    return max(0, bytes_alone(disk.path) - kept)


def _grows(disk: DiskStatus) -> bool:
    read_only = disk.record is not None and disk.record.read_only
    return not read_only and disk.format is not DiskFormat.ISO


def _is_on(disk: DiskStatus, device: int) -> bool:
    try:
        return disk.path.lstat().st_dev == device
    except FileNotFoundError:
        return False
