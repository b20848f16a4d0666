"""Removes disk volumes.

A removal starts with one rename, after which the volume does not exist; whatever happens later,
recovery or the next call on the name finishes it: snapshots and record go, then the file. Callers
hold the volume's lock.
"""

__all__ = ["DiskRemoval"]

import logging
import os
import stat
from pathlib import Path

from cas.errors import InUseError
from cas.fsops.durable import publish, remove_file, rename_aside
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.events import EventKind
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.volumes.disk.histories import remove_history
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.records import remove_disk_record
from cas.volumes.disk.scan import find_disk
from cas.volumes.disk.unused import unused

_LOGGER = logging.getLogger(__name__)


class DiskRemoval:
    """Takes disk volumes away.

    Args:
        backing: The store.
    """

    def __init__(self, backing: DiskPlace) -> None:
        self._backing = backing

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove a volume with its data; idempotent.

        Args:
            name: The volume.
            force: Also when it is open: who has it open keeps it until they close it.

        Returns:
            Whether there was anything of the volume.

        Raises:
            InUseError: It is open and ``force`` is not set; it stays as it is.
        """
        finished = self.finish(name)
        paths = find_disk(self._backing.layout, name)
        if paths is None:
            return finished
        if force:
            rename_aside(paths.file, paths.removing)
        else:
            _set_aside_unused(paths)
        self.finish(name)
        _LOGGER.info("disk volume removed volume=%s", name)
        return True

    def finish(self, name: VolumeName) -> bool:
        """Finish a removal that has begun; gives whether there was one."""
        removed = [
            self._finish(self._backing.layout.disk(name, clear=each)) for each in (False, True)
        ]
        return any(removed)

    def _finish(self, paths: DiskPaths) -> bool:
        if not _is_file(paths.removing):
            return False
        gone = not _is_file(paths.file)
        if gone:
            remove_history(paths)
            remove_disk_record(paths)
        remove_file(paths.removing)
        if gone:
            self._backing.events.publish(EventKind.VOLUME_REMOVED, [str(paths.name)])
        return True

    def undo_preparation(self, paths: DiskPaths) -> bool:
        """Remove what a preparation has made that did not come to its end. Idempotent.

        Returns:
            Whether there was anything.
        """
        hidden = (paths.preparing, paths.reformatting)
        # Also a directory, which a killed preparation of a container left under the same name; its
        # snapshot is left to recovery.
        there = [path for path in hidden if os.path.lexists(path)]
        for path in there:
            remove_tree(path)
        # A failure after the rename leaves a complete volume, which keeps its record.
        if _is_file(paths.file):
            return bool(there)
        forgotten = [remove_history(paths), remove_disk_record(paths)]
        return bool(there) or any(forgotten)


def _set_aside_unused(paths: DiskPaths) -> None:
    with unused(paths) as require_nobody_waits:
        rename_aside(paths.file, paths.removing)
        try:
            require_nobody_waits()
        except InUseError:
            publish(paths.removing, paths.file)
            raise


def _is_file(path: Path) -> bool:
    with translated("inspect", path):
        try:
            return stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            return False
