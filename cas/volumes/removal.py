"""Removes volumes.

A removal starts with one rename, after which the volume does not exist; whatever happens later,
recovery or the next call on the name finishes it. Nothing is deleted through a mount. Callers hold
the volume's lock.
"""

__all__ = ["Removal"]

import logging
from pathlib import Path

from cas.errors import CorruptVolumeError, InUseError, SnapshotNotFoundError
from cas.fsops.durable import rename_aside
from cas.fsops.mounts import mounts_below, unmount
from cas.fsops.trees import remove_tree
from cas.model.events import EventKind
from cas.model.labels import VOLUME
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.volumes.activation import Activation
from cas.volumes.own_snapshots import remove_all_but
from cas.volumes.records import read_record, read_snapshot_key
from cas.volumes.scan import stands

_LOGGER = logging.getLogger(__name__)


class Removal:
    """Takes volumes away.

    Args:
        backing: The store.
        activation: Unmounts them.
    """

    def __init__(self, backing: Backing, activation: Activation) -> None:
        self._backing = backing
        self._activation = activation

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove a volume with its data; idempotent.

        Space comes back with the next collection, which is the caller's to start once after many
        removals.

        Args:
            name: The volume.
            force: Also when it is in use: processes keep what they have open and see nothing new.

        Returns:
            Whether there was anything of the volume.

        Raises:
            InUseError: It is in use and ``force`` is not set; it stays as it is.
            MountPointError: Something else is mounted on it and ``force`` is not set.
        """
        layout = self._backing.layout
        directory = layout.volume(name)
        finished = self.finish(name)
        if not stands(layout, name):
            return finished
        self._unmount(name, directory, force=force)
        rename_aside(directory, layout.volume_removing(name))
        self.finish(name)
        _LOGGER.info("volume removed volume=%s", name)
        return True

    def finish(self, name: VolumeName) -> bool:
        """Finish a removal that has begun.

        Returns:
            Whether there was one.

        Raises:
            InUseError: Something is mounted in the leftover.
        """
        layout = self._backing.layout
        leftover = layout.volume_removing(name)
        if not leftover.is_dir() or leftover.is_symlink():
            return False
        _require_unmounted(name, leftover)
        gone = not stands(layout, name)
        if gone:
            # The snapshot first: without the directory nobody would know its key any more.
            self._drop_snapshot(name, read_snapshot_key(leftover, name))
            remove_all_but(self._backing, name, ())
        remove_tree(leftover)
        if gone:
            self._backing.events.publish(EventKind.VOLUME_REMOVED, [str(name)])
        return True

    def _drop_snapshot(self, name: VolumeName, key: str) -> None:
        """Remove the volume's snapshot; a damaged record may name one of another volume."""
        snapshots = self._backing.snapshots
        try:
            owner = snapshots.stat(key).labels.get(VOLUME, str(name))
        except SnapshotNotFoundError:
            return
        if owner == str(name):
            snapshots.remove(key)
        else:
            _LOGGER.warning("snapshot left alone volume=%s key=%s owner=%s", name, key, owner)

    def _unmount(self, name: VolumeName, directory: Path, *, force: bool) -> None:
        if not force:
            try:
                self._activation.deactivate(read_record(directory, name))
            except CorruptVolumeError as error:
                # It can be removed all the same, unless something is mounted: see below.
                _LOGGER.warning("removing a corrupt volume volume=%s error=%s", name, error)
            _require_unmounted(name, directory)
        for point in mounts_below(directory):
            unmount(point.path, lazily=True)


def _require_unmounted(name: VolumeName, directory: Path) -> None:
    points = mounts_below(directory)
    if points:
        raise InUseError(
            f"volume {name} has mounts inside, such as {str(points[0].path)!r}; unmount them, or "
            "remove the volume with force",
            name=name,
            path=points[0].path,
        )
