"""Brings a disk to what the history of its snapshots says; the steps of all that changes one.

The history is written first. What it asks for is done then: by the operation itself, or after a
kill by whoever comes next. Every step may be repeated. Callers hold the volume's lock.
"""

__all__ = ["DiskSettling"]

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cas.errors import CasError, VolumeConflictError
from cas.fsops.durable import remove_temporaries
from cas.model.disk.format import DiskFormat
from cas.model.disk.history import DiskHistory, giving_up
from cas.model.layout import DiskPaths
from cas.store.prune.reserve import room_to_remove
from cas.volumes.disk.histories import is_settled, read_history, write_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.place import DiskPlace
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.states import CopiedStates, DiskStates, Qcow2States
from cas.volumes.disk.unused import is_due_to_writing, require_unused

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
            InUseError: The disk is open, and there is something to do. If it is open to write, it
                will not be returned to a state any more: what was written would be lost.
            CorruptVolumeError: A state that the disk is to have is gone, or the disk is damaged.
            QemuImgError: qemu-img failed.
        """
        if is_settled(paths):
            return False
        remove_temporaries(paths.snapshots)
        history = read_history(paths)
        if not history.settled:
            with self._given_up_if_used(paths, history):
                require_unused(paths)
                self.states(paths, history.token).repair(killed=True)
        self.carry_out(paths, history)
        return True

    def take_back(self, paths: DiskPaths, history: DiskHistory) -> None:
        """Return to a history that was; a step that failed may have left what belongs to nobody.

        Raises:
            InUseError: As :meth:`settle`.
        """
        write_history(paths, history)
        with self._given_up_if_used(paths, history):
            self.states(paths, history.token).repair(killed=False)
        self.carry_out(paths, history)

    def carry_out(self, paths: DiskPaths, history: DiskHistory) -> None:
        """Do what the history asks for, and note that it is done."""
        if not history.settled:
            states = self.states(paths, history.token)
            if history.restoring is not None:
                with self._given_up_if_used(paths, history):
                    states.return_to(history.restoring)
                history = replace(history, restoring=None)
                write_history(paths, history)  # from now on the disk may be written to
            for number in history.doomed:
                states.drop(number)
                _LOGGER.info("state of a disk dropped volume=%s number=%d", paths.name, number)
        write_history(paths, replace(history, doomed=()))

    def give_up(self, paths: DiskPaths, history: DiskHistory) -> None:
        """Have the disk stay as it is, durably, where the history says to return to a state."""
        with room_to_remove(self._place.layout):  # what is not noted would be done later
            write_history(paths, giving_up(history))

    @contextmanager
    def _given_up_if_used(self, paths: DiskPaths, history: DiskHistory) -> Iterator[None]:
        """Give up to return to a state when the block fails because somebody writes."""
        try:
            yield
        except CasError as error:
            if history.restoring is None or not is_due_to_writing(error, paths):
                raise
            self.give_up(paths, history)
            _LOGGER.warning(
                "disk is in use and stays as it is volume=%s state=%d",
                paths.name,
                history.restoring,
            )
            error.extend(
                f"volume {paths.name} stays as it is: its rollback, or the way back from one, is "
                "given up for good",
                given_up=paths.name,
            )
            raise
