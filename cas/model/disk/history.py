"""The snapshots of a disk volume: how they change, without a look at the disk.

The history says what is to be, so writing it is the one moment at which an operation has happened.
States of the disk have numbers; one that is doomed is not wanted, or not yet: it may be there, a
part of it, or nothing.
"""

__all__ = [
    "FIRST_NUMBER",
    "MAX_DISK_SNAPSHOTS",
    "DiskHistory",
    "DiskSnapshot",
    "dooming_next",
    "find_disk_snapshot",
    "forgetting",
    "giving_up",
    "keeping",
    "returning",
]

from dataclasses import dataclass, replace
from datetime import datetime

from cas.errors import LimitExceededError, VolumeSnapshotNotFoundError
from cas.model.volume_name import VolumeName

MAX_DISK_SNAPSHOTS = 128
"""Of one disk: each is looked at by whatever changes one of them."""
FIRST_NUMBER = 1


@dataclass(frozen=True, slots=True)
class DiskSnapshot:
    """A state of the disk that has a name.

    Args:
        name: Unique within the volume.
        number: Of the state.
        created: When it was taken, aware UTC.
        allocated: Bytes of the file system that the volume's file had then.
    """

    name: str
    number: int
    created: datetime
    allocated: int


@dataclass(frozen=True, slots=True)
class DiskHistory:
    """What there is beside the present content of a disk volume.

    Args:
        snapshots: Oldest first.
        next_number: Of the next state.
        doomed: Numbers of states that are to be dropped.
        restoring: State that the disk is to have, if it may not have it yet.
        token: Tells the states of this history from others in the same file, which an image made of
            a volume brings along.
    """

    snapshots: tuple[DiskSnapshot, ...] = ()
    next_number: int = FIRST_NUMBER
    doomed: tuple[int, ...] = ()
    restoring: int | None = None
    token: str = ""

    @property
    def settled(self) -> bool:
        """Whether the disk is what this says, so that nothing has to be done."""
        return self.restoring is None and not self.doomed


def find_disk_snapshot(history: DiskHistory, name: VolumeName, snapshot: str) -> DiskSnapshot:
    """Find a snapshot of the volume.

    Raises:
        VolumeSnapshotNotFoundError: It has none of this name.
    """
    for each in history.snapshots:
        if each.name == snapshot:
            return each
    names = ", ".join(repr(each.name) for each in history.snapshots)
    raise VolumeSnapshotNotFoundError(
        f"volume {name} has no snapshot {snapshot!r}; it has {names or 'none'}",
        name=name,
        snapshot=snapshot,
    )


def dooming_next(history: DiskHistory, name: VolumeName, *, token: str) -> DiskHistory:
    """Announce a state that will be kept only if a snapshot is made of it.

    Args:
        history: Of the disk, settled.
        name: The volume.
        token: A new one, for a disk that has no snapshots yet.

    Raises:
        LimitExceededError: The volume has as many snapshots as it may have.
    """
    count = len(history.snapshots)
    if count >= MAX_DISK_SNAPSHOTS:
        raise LimitExceededError(
            f"volume {name} has {count} snapshots, the most that a disk may have; remove some",
            name=name,
            expected=MAX_DISK_SNAPSHOTS,
            actual=count,
        )
    return replace(
        history,
        doomed=(history.next_number,),
        next_number=history.next_number + 1,
        token=history.token or token,
    )


def keeping(
    history: DiskHistory, snapshot: str, *, number: int, now: datetime, allocated: int
) -> DiskHistory:
    """Make a snapshot of a state that was announced and is there by now."""
    taken = DiskSnapshot(snapshot, number, now, allocated)
    return replace(history, snapshots=(*history.snapshots, taken), doomed=())


def returning(history: DiskHistory, target: DiskSnapshot, *, drop_later: bool) -> DiskHistory:
    """Return to a snapshot, the present state being kept until that is done.

    Args:
        history: Of the disk, settled.
        target: A snapshot in it.
        drop_later: Also forget the snapshots that were taken after it.
    """
    kept = history.snapshots
    if drop_later:
        kept = kept[: kept.index(target) + 1]
    dropped = tuple(each.number for each in history.snapshots if each not in kept)
    return replace(
        history,
        snapshots=kept,
        next_number=history.next_number + 1,
        doomed=(history.next_number, *dropped),
        restoring=target.number,
    )


def giving_up(history: DiskHistory) -> DiskHistory:
    """Leave the disk as it is instead of returning to a state, for good.

    The next number grows as by a rollback, so that none that had begun is taken for not begun.
    """
    return replace(history, next_number=history.next_number + 1, restoring=None)


def forgetting(history: DiskHistory, target: DiskSnapshot) -> DiskHistory:
    """Take a snapshot out; the others and the disk stay what they are."""
    kept = tuple(each for each in history.snapshots if each is not target)
    return replace(history, snapshots=kept, doomed=(*history.doomed, target.number))
