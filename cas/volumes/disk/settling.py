"""Brings a disk to what the history of its snapshots says; the steps of all that changes one.

The history is written first. What it asks for is done then: by the operation itself, or after a
kill by whoever comes next. Every step may be repeated. Callers hold the volume's lock.
"""

__all__ = ["DiskSettling"]

import logging
from dataclasses import replace

from cas.errors import VolumeConflictError
from cas.fsops.durable import remove_temporaries
from cas.model.disk.format import DiskFormat
from cas.model.disk.history import DiskHistory
from cas.model.layout import DiskPaths
from cas.volumes.disk.histories import is_settled, read_history, write_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.states import CopiedStates, DiskStates, Qcow2States
from cas.volumes.disk.unused import require_unused

_LOGGER = logging.getLogger(__name__)


class DiskSettling:
    """Keeps, restores and drops states of disks.

    Args:
        place: Where they are.
        qemu: Works on those with tables of their own.
    """

    def __init__(self, place: DiskPlace, qemu: QemuImg) -> None:
        self._place = place
        self._qemu = qemu

    def states(self, paths: DiskPaths, token: str) -> DiskStates:
        """Give the states of a disk, by its format.

        Raises:
            VolumeConflictError: It is of a format whose states are not kept.
            CorruptVolumeError: It is damaged.
            QemuImgMissingError: It takes qemu-img, and there is none.
        """
        disk_format = look_at_disk(paths, self._place.limits).format
        match disk_format:
            case DiskFormat.QCOW2:
                self._qemu.require()
                return Qcow2States(paths, self._qemu, token)
            case DiskFormat.RAW:
                return CopiedStates(paths)
        raise VolumeConflictError(
            f"volume {paths.name} is a disk in format {disk_format}, of which no snapshots are "
            "taken; prepare it as qcow2 (--format qcow2)",
            name=paths.name,
            format=disk_format,
        )

    def settle(self, paths: DiskPaths) -> bool:
        """End what a kill interrupted; cheap when there is nothing.

        Returns:
            Whether there was anything.

        Raises:
            InUseError: The disk is open, and there is something to do.
            CorruptVolumeError: A state that the disk is to have is gone, or the disk is damaged.
            QemuImgError: qemu-img failed.
        """
        if is_settled(paths):
            return False
        remove_temporaries(paths.snapshots)
        history = read_history(paths)
        if not history.settled:
            require_unused(paths)
            self.states(paths, history.token).repair(killed=True)
        self.carry_out(paths, history)
        return True

    def carry_out(self, paths: DiskPaths, history: DiskHistory) -> None:
        """Do what the history asks for, and note that it is done."""
        if not history.settled:
            states = self.states(paths, history.token)
            if history.restoring is not None:
                states.return_to(history.restoring)
                history = replace(history, restoring=None)
                write_history(paths, history)  # from now on the disk may be written to
            for number in history.doomed:
                states.drop(number)
                _LOGGER.info("state of a disk dropped volume=%s number=%d", paths.name, number)
        write_history(paths, replace(history, doomed=()))
