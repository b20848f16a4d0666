"""What snapshots of container volumes and of disk volumes have in common, as one port.

A use case on one volume or several is made of changes, each of one volume: all are applied, or
those that were are undone; then each is finished.
"""

__all__ = ["SnapshotChange", "SnapshotKind"]

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from cas.model.volume_name import VolumeName
from cas.volumes.status import VolumeSnapshot


class SnapshotChange(Protocol):
    """A change of one volume that has not been made yet."""

    @property
    def name(self) -> VolumeName:
        """The volume."""

    @property
    def before(self) -> str:
        """What :meth:`SnapshotKind.mark` was when nothing had been done."""

    @property
    def given_up(self) -> str | None:
        """Why it stays although it was to be taken back; recovery leaves it as well."""

    def apply(self) -> None:
        """Make it, durably. After failure the volume is as before, or recovery completes it."""

    def undo(self) -> None:
        """Take back what was applied and not finished, or give that up for good. Idempotent."""

    def finish(self) -> None:
        """Give back what is not needed once there is no way back; what fails is recovery's."""


class SnapshotKind(Protocol):
    """The snapshots of the volumes of one kind. Callers hold the locks of the volumes."""

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a volume of this kind and name."""

    def settle(self, name: VolumeName, *, may_be_lost: bool = False) -> None:
        """End what a kill interrupted; cheap when there is nothing.

        Args:
            name: The volume.
            may_be_lost: Its present content need not be there.

        Raises:
            CorruptVolumeError: The volume is damaged.
        """

    def mark(self, name: VolumeName) -> str:
        """Give a text that no two states of the volume share, told apart by their rollbacks."""

    def taken_at(self, name: VolumeName, snapshot: str) -> str | None:
        """Give the mark that the volume had when a snapshot was taken; None if there is none."""

    def freezing(self, name: VolumeName, snapshot: str) -> SnapshotChange:
        """Take a snapshot that does not exist yet.

        Raises:
            VolumeConflictError: No snapshot can be taken of the volume.
            LimitExceededError: It has too many.
        """

    def returning(self, name: VolumeName, snapshot: str, *, drop_later: bool) -> SnapshotChange:
        """Return to a snapshot.

        Raises:
            VolumeSnapshotNotFoundError: There is none of this name.
        """

    def forget(self, name: VolumeName, snapshot: str) -> None:
        """Remove a snapshot that exists; a repetition goes on after a failure."""

    def idle(self, name: VolumeName, *, quiesced: bool) -> AbstractContextManager[None]:
        """Have the volume used by nobody for the block, and as it was before afterwards.

        Raises:
            InUseError: It is used, or active and not ``quiesced``.
        """

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream the volume's snapshots, oldest first; needs no lock."""
