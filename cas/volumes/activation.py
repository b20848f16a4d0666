"""Mounts and unmounts volumes.

Invariants: a mount point only ever hides an empty directory; a volume's writable layer is mounted
in one place at a time; a mount that is not the volume's is neither used nor removed. Callers hold
the volume's lock.
"""

__all__ = ["Activation"]

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cas.errors import CorruptVolumeError, InUseError, MountPointError, SnapshotNotFoundError
from cas.fsops.durable import sync_file_system
from cas.fsops.mount_namespaces import find_overlay_elsewhere
from cas.fsops.mounts import MountPoint, find_mount, iter_mounts, mount, unmount
from cas.fsops.translation import translated
from cas.model.events import EventKind
from cas.model.records import Mount
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.volumes.mount_identity import is_mount_of
from cas.volumes.records import replace_record

_LOGGER = logging.getLogger(__name__)


class Activation:
    """Brings volumes to their mount points and back.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def activate(self, record: VolumeRecord) -> Path:
        """Mount a volume at its ``rootfs``; idempotent.

        After failure nothing is mounted. Device nodes of the image do not work in the mount.

        Returns:
            The mount point.

        Raises:
            CorruptVolumeError: Its snapshot or its mount point is gone.
            MountPointError: Something else is mounted or stored at the mount point.
            InUseError: The writable layer is mounted elsewhere.
        """
        rootfs = self._backing.layout.volume_rootfs(record.name)
        mounts = self.snapshot_mounts(record)
        current = find_mount(rootfs)
        if current is not None:
            self._require_own(record.name, current, mounts)
            return rootfs
        _require_empty(record.name, rootfs)
        _require_unmounted(record.name, mounts)
        mount(mounts, rootfs, nodev=True)
        _LOGGER.info("volume activated volume=%s path=%s", record.name, rootfs)
        self._backing.events.publish(EventKind.VOLUME_ACTIVATED, [str(record.name)])
        return rootfs

    def used(self, record: VolumeRecord) -> VolumeRecord:
        """Note that the volume is about to be mounted, so that its layer may hold data from now on.

        Returns:
            The record as it is now.
        """
        history = record.history
        if history is None or not history.unused:
            return record
        changed = replace(record, history=replace(history, unused=False))
        replace_record(self._backing.layout.volume(record.name), changed)
        return changed

    def deactivate(self, record: VolumeRecord) -> bool:
        """Unmount a volume, its data synced; idempotent.

        Returns:
            Whether it was mounted.

        Raises:
            InUseError: Processes use it, or something is mounted inside; it stays mounted.
            MountPointError: What is mounted there is not the volume.
        """
        rootfs = self._backing.layout.volume_rootfs(record.name)
        current = find_mount(rootfs)
        if current is None:
            return False
        self._require_own(record.name, current, self.snapshot_mounts(record))
        if not record.read_only:
            # A bind mount's file system stays mounted, so its unmount would sync nothing.
            sync_file_system(rootfs)
        unmount(rootfs)
        _LOGGER.info("volume deactivated volume=%s path=%s", record.name, rootfs)
        self._backing.events.publish(EventKind.VOLUME_DEACTIVATED, [str(record.name)])
        return True

    def is_active(self, record: VolumeRecord, current: MountPoint | None) -> bool:
        """Whether the volume, which must be usable, is mounted.

        Args:
            record: The volume.
            current: What the mount table says about its mount point.

        Raises:
            MountPointError: Something else is mounted there.
            CorruptVolumeError: Its snapshot or its mount point is gone.
        """
        mounts = self.snapshot_mounts(record)
        if current is not None:
            self._require_own(record.name, current, mounts)
            return True
        _require_directory(record.name, self._backing.layout.volume_rootfs(record.name))
        return False

    def require_unmounted(self, record: VolumeRecord) -> None:
        """Return if the writable layer is mounted nowhere, in other mount namespaces neither.

        Raises:
            InUseError: It is.
            CorruptVolumeError: The snapshot is gone.
        """
        mounts = self.snapshot_mounts(record)
        _require_unmounted(record.name, mounts)
        upper = mounts[0].option("upperdir") if len(mounts) == 1 else None
        found = None if upper is None else find_overlay_elsewhere(upper)
        if found is not None:
            pid, path = found
            raise InUseError(
                f"volume {record.name} is mounted at {str(path)!r} in the mount namespace of "
                f"process {pid}; stop what runs there",
                name=record.name,
                pid=pid,
            )

    def snapshot_mounts(self, record: VolumeRecord) -> list[Mount]:
        """Ask how the volume's snapshot is mounted.

        Raises:
            CorruptVolumeError: The snapshot is gone, or is another snapshotter's.
        """
        if record.snapshotter != self._backing.snapshotter:
            raise CorruptVolumeError(
                f"volume {record.name} lies in snapshotter {record.snapshotter!r}, but this store "
                f"works with {self._backing.snapshotter!r}; change the configuration",
                name=record.name,
                expected=self._backing.snapshotter,
                actual=record.snapshotter,
            )
        try:
            return self._backing.snapshots.mounts(record.snapshot_key)
        except SnapshotNotFoundError as error:
            way_out = (
                "remove the volume and prepare it again"
                if record.history is None
                else "'cas check --fix' finishes an interrupted snapshot; otherwise roll back to "
                "an earlier one"
            )
            raise CorruptVolumeError(
                f"snapshot {record.snapshot_key!r} of volume {record.name} is gone and its data "
                f"with it; {way_out}",
                name=record.name,
                snapshot=record.snapshot_key,
            ) from error

    def _require_own(self, name: VolumeName, current: MountPoint, mounts: Sequence[Mount]) -> None:
        if not is_mount_of(current, mounts):
            raise MountPointError(
                f"{str(current.path)!r} holds a mount of {current.source!r} ({current.fs_type}) "
                f"that is not volume {name}; unmount it",
                name=name,
                path=current.path,
            )


def _require_directory(name: VolumeName, rootfs: Path) -> None:
    if rootfs.is_symlink() or not rootfs.is_dir():
        raise CorruptVolumeError(
            f"mount point {str(rootfs)!r} of volume {name} is missing or no directory; make it an "
            "empty directory again",
            name=name,
            path=rootfs,
        )


def _require_empty(name: VolumeName, rootfs: Path) -> None:
    _require_directory(name, rootfs)
    with translated("list", rootfs):
        occupant = next(rootfs.iterdir(), None)
    if occupant is not None:
        raise MountPointError(
            f"mount point {str(rootfs)!r} of volume {name} is not empty: it holds "
            f"{occupant.name!r}, which a mount would hide; move it away",
            name=name,
            path=rootfs,
        )


def _require_unmounted(name: VolumeName, mounts: Sequence[Mount]) -> None:
    """Refuse a second mount of one writable layer: the kernel allows it and loses data."""
    upper = mounts[0].option("upperdir") if len(mounts) == 1 else None
    if upper is None:
        return
    for point in iter_mounts():
        if point.fs_type == "overlay" and point.option("upperdir") == upper:
            raise InUseError(
                f"the writable layer of volume {name} is mounted at {str(point.path)!r} already; "
                "unmount it there",
                name=name,
                path=point.path,
            )
