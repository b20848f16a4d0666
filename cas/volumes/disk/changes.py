"""What changes of a disk's snapshots are made of, and the one that takes a snapshot."""

__all__ = ["DiskChange", "Keeping"]

from dataclasses import dataclass, replace

from cas.errors import CasError
from cas.model.disk.history import DiskHistory, forgetting, keeping
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.space import Space
from cas.volumes.disk.admission import DiskAdmission
from cas.volumes.disk.histories import read_history, write_history
from cas.volumes.disk.looking import look_at_disk
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.disk.states import RESERVED_BYTES, DiskStates


@dataclass(frozen=True, slots=True)
class DiskChange:
    """What all changes of a disk are made of.

    Args:
        backing: The store.
        admission: Lets a disk be written anew beside its snapshot, or not.
        settling: Does what a history asks for.
        paths: Of the disk.
        states: Of the disk.
        history: As it was before.
    """

    backing: Backing
    admission: DiskAdmission
    settling: DiskSettling
    paths: DiskPaths
    states: DiskStates
    history: DiskHistory

    def keep(self, number: int) -> None:
        """Keep the present content, if there is room for its tables."""
        what = f"a snapshot of volume {self.paths.name}"
        with Space(self.backing).reserve(RESERVED_BYTES, what, at=self.paths.directory):
            self.states.keep(number)

    def take_back(self, history: DiskHistory) -> None:
        """Return to a history that was; see :meth:`DiskSettling.take_back`."""
        self.settling.take_back(self.paths, history)

    def carry_out(self, history: DiskHistory) -> None:
        """Have another history, and do what it asks for."""
        write_history(self.paths, history)
        self.settling.carry_out(self.paths, history)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Takes a snapshot; a :class:`cas.volumes.snapshot_kind.SnapshotChange`.

    Args:
        change: What it is made of.
        announced: The history in which the snapshot's state is doomed.
        snapshot: Its name.
    """

    change: DiskChange
    announced: DiskHistory
    snapshot: str

    @property
    def name(self) -> VolumeName:
        """The volume."""
        return self.change.paths.name

    @property
    def before(self) -> str:
        """The number of the next state."""
        return str(self.change.history.next_number)

    @property
    def given_up(self) -> None:
        """Nothing: the disk's content is the same with the snapshot and without it."""

    def apply(self) -> None:
        """Keep the state and give it its name."""
        change = self.change
        with change.admission.changeable(change.paths):
            self._announced_and_kept()

    def _announced_and_kept(self) -> None:
        change = self.change
        write_history(change.paths, self.announced)
        try:
            self._keep()
        except CasError as error:
            try:
                number = change.history.next_number
                change.take_back(replace(self.announced, next_number=number))
            except CasError as second:
                error.add_note(f"what is left of it is for recovery: {second}")
            raise

    def _keep(self) -> None:
        change = self.change
        (number,) = self.announced.doomed
        change.keep(number)
        allocated = look_at_disk(change.paths, change.backing.limits).allocated
        now = change.backing.clock()
        taken = keeping(self.announced, self.snapshot, number=number, now=now, allocated=allocated)
        write_history(change.paths, taken)

    def undo(self) -> None:
        """Take the snapshot out, and drop its state."""
        history = read_history(self.change.paths)
        taken = [each for each in history.snapshots if each.name == self.snapshot]
        for each in taken:
            history = forgetting(history, each)
        self.change.carry_out(history)

    def finish(self) -> None:
        """Nothing: all that was is needed."""
