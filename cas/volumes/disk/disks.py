"""Disk volumes: one file each; there is nothing to mount."""

__all__ = ["DiskVolumes"]

import os
from collections.abc import Iterator

from cas.errors import CasError, CorruptVolumeError, VolumeNotFoundError
from cas.fsops.draft import allocated_bytes_of
from cas.fsops.record_locks import has_record_lock
from cas.fsops.translation import translated
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader, read_disk_header
from cas.model.disk.record import DiskRecord
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.volumes.disk.records import read_disk_record
from cas.volumes.disk.recovery import DiskRecovery
from cas.volumes.disk.removal import DiskRemoval, require_unused
from cas.volumes.disk.scan import find_disk, iter_disks
from cas.volumes.status import DiskStatus, Recovered, VolumeState, VolumeStatus, VolumeUsage

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TELLS_NOTHING = frozenset({DiskFormat.RAW, DiskFormat.ISO})
"""Formats whose whole content is the guest's, so that nothing in it is believed."""


class DiskVolumes:
    """A :class:`cas.volumes.kind.VolumeKind`.

    Args:
        backing: The store.
        locks: Its locks.
        removal: Takes them away.
    """

    def __init__(self, backing: Backing, locks: Locks, removal: DiskRemoval) -> None:
        self._backing = backing
        self._removal = removal
        self._recovery = DiskRecovery(backing, locks, removal)

    def names(self) -> Iterator[VolumeName]:
        """Stream the names of those that exist."""
        return iter(sorted(paths.name for paths in iter_disks(self._backing.layout)))

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a disk volume of this name."""
        return find_disk(self._backing.layout, name) is not None

    def statuses(self) -> Iterator[VolumeStatus]:
        """Look at every one, by name."""
        for paths in sorted(iter_disks(self._backing.layout), key=lambda paths: paths.name):
            status = self._status(paths)
            # One that was removed while we looked is not damaged.
            if status.state is not VolumeState.CORRUPT or self.exists(paths.name):
                yield status

    def status(self, name: VolumeName) -> VolumeStatus:
        """Look at one that exists."""
        return self._status(self._paths(name))

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Look whether one that exists can be used; there is nothing to mount.

        Raises:
            CorruptVolumeError: It cannot.
        """
        status = self.status(name)
        if status.problem is not None:
            raise CorruptVolumeError(status.problem, name=name, path=status.rootfs)
        return status

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """See that nobody has one that exists open.

        Raises:
            InUseError: Somebody has.
        """
        require_unused(self._paths(name))
        return self.status(name)

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove whatever there is of this name."""
        return self._removal.remove(name, force=force)

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure one that exists: allocated blocks, those that a reflink shares included."""
        paths = self._paths(name)
        disk = self._look(paths, read_disk_record(paths))
        return VolumeUsage(own_bytes=disk.allocated, shared_bytes=0, inodes=1)

    def recover(self) -> Iterator[Recovered]:
        """Finish or undo what killed operations left."""
        return self._recovery.recover()

    def _paths(self, name: VolumeName) -> DiskPaths:
        paths = find_disk(self._backing.layout, name)
        if paths is None:
            raise VolumeNotFoundError(f"there is no volume {name}", name=name)
        return paths

    def _status(self, paths: DiskPaths) -> VolumeStatus:
        try:
            record = read_disk_record(paths)
            disk = self._look(paths, record)
            used = has_record_lock(paths.file)
        except CasError as error:
            return VolumeStatus(paths.name, VolumeState.CORRUPT, paths.file, None, error.message)
        state = VolumeState.ACTIVE if used else VolumeState.INACTIVE
        return VolumeStatus(paths.name, state, paths.file, None, None, disk)

    def _look(self, paths: DiskPaths, record: DiskRecord | None) -> DiskStatus:
        with translated("open", paths.file):
            descriptor = os.open(paths.file, _READ)
        try:
            with translated("read", paths.file):
                header = self._header(paths, record, descriptor)
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
        )

    def _header(self, paths: DiskPaths, record: DiskRecord | None, descriptor: int) -> DiskHeader:
        size = os.fstat(descriptor).st_size
        if record is not None and record.format in _TELLS_NOTHING:
            return DiskHeader(record.format, size)
        try:
            return read_disk_header(
                lambda offset, length: os.pread(descriptor, length, offset),
                size,
                self._backing.limits,
                claimed=None if record is None else record.format,
                what=f"disk volume {paths.name}",
            )
        except CasError as error:
            raise CorruptVolumeError(
                f"{error.message}; remove the volume and prepare it again",
                name=paths.name,
                path=paths.file,
            ) from error
