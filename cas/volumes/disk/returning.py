"""The rollback of a disk, and the way back from it, which ends where somebody uses the disk.

Whoever has opened the disk meanwhile has written to it, or is about to. That is never taken back:
what was to be done to the disk is given up then, in its history and so for good.
"""

__all__ = ["Returning"]

from dataclasses import replace
from pathlib import Path

from cas.errors import CasError, InUseError
from cas.fsops.translation import translated
from cas.model.disk.history import DiskHistory, DiskSnapshot, giving_up, returning
from cas.model.volume_name import VolumeName
from cas.volumes.disk.changes import DiskChange
from cas.volumes.disk.histories import read_history, write_history
from cas.volumes.disk.unused import is_due_to_use, is_due_to_writing, require_unwritten


class Returning:
    """A :class:`cas.volumes.snapshot_kind.SnapshotChange`.

    Args:
        change: What it is made of.
        target: Where to.
        drop_later: Forget the snapshots that were taken after it.
    """

    def __init__(self, change: DiskChange, target: DiskSnapshot, *, drop_later: bool) -> None:
        self._change = change
        self._target = target
        self._after = returning(change.history, target, drop_later=drop_later)
        self._left: tuple[int, ...] | None = None
        self._returned = False
        self._given_up: str | None = None

    @property
    def name(self) -> VolumeName:
        """The volume."""
        return self._change.paths.name

    @property
    def before(self) -> str:
        """The number of the next state."""
        return str(self._number)

    @property
    def given_up(self) -> str | None:
        """Why the disk stays as it is."""
        return self._given_up

    def apply(self) -> None:
        """Keep the present state, and make the disk what it was."""
        change = self._change
        write_history(change.paths, self._after)
        try:
            change.keep(self._number)
            change.states.return_to(self._target.number)
            self._left, self._returned = _content_mark(change.paths.file), True
            write_history(change.paths, replace(self._after, restoring=None))
        except CasError as error:
            try:
                self._undo_begun(error)
            except CasError as second:
                error.add_note(f"volume {self.name} is left to recovery: {second}")
            raise

    def undo(self) -> None:
        """Return to the state that was kept first; without it nothing has happened to the disk."""
        try:
            self._require_as_left()
            self._take_back(self._undone(changed=self._change.states.has(self._number)))
        except CasError as error:
            if not self._gives_up(error):
                raise

    def finish(self) -> None:
        """Drop the state that was the way back, and those of snapshots that are forgotten."""
        after = replace(self._after, restoring=None)
        self._change.settling.carry_out(self._change.paths, after)

    @property
    def _number(self) -> int:
        return self._change.history.next_number

    def _undone(self, *, changed: bool) -> DiskHistory:
        restoring = self._number if changed else None
        return replace(self._change.history, doomed=(self._number,), restoring=restoring)

    def _take_back(self, history: DiskHistory) -> None:
        self._left = None
        self._change.take_back(history)

    def _undo_begun(self, error: CasError) -> None:
        if self._left is None and is_due_to_use(error, self._change.paths):
            # Who has opened the disk meanwhile has it as it was, and writes to it.
            left = self._undone(changed=False)
            self._change.settling.give_up(self._change.paths, left)
            self._given_up = f"volume {self.name} stays as it was"
            self._take_back(giving_up(left))
        else:
            self.undo()

    def _require_as_left(self) -> None:
        paths = self._change.paths
        require_unwritten(paths)
        if self._left not in {None, _content_mark(paths.file)}:
            raise InUseError(
                f"disk volume {paths.name} was written to by somebody who has closed it again",
                name=paths.name,
                path=paths.file,
            )

    def _gives_up(self, error: CasError) -> bool:
        """Whether the disk is not taken back because of who writes, which is noted for good."""
        if not is_due_to_writing(error, self._change.paths):
            return False
        paths = self._change.paths
        history = read_history(paths)
        if history.restoring is not None:
            self._change.settling.give_up(paths, self._undone(changed=False))
        elif history.next_number == self._number:
            return False  # it was taken back, and only the room of a state is left to recovery
        state = f"rolled back to snapshot {self._target.name!r}" if self._returned else "as it is"
        self._given_up = (
            f"volume {self.name} stays {state}, so that nothing is lost of what was written "
            f"since ({error.message})"
        )
        return True


def _content_mark(path: Path) -> tuple[int, ...]:
    """Give what changes with whatever is written to the file."""
    with translated("inspect", path):
        status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
