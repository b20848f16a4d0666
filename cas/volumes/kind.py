"""What container volumes and disk volumes have in common, as one port."""

__all__ = ["VolumeKind"]

from collections.abc import Iterator
from typing import Protocol

from cas.model.volume_name import VolumeName
from cas.volumes.status import Recovered, VolumeStatus, VolumeUsage


class VolumeKind(Protocol):
    """The volumes of one kind. Callers hold the volume's lock for whatever changes it."""

    def names(self) -> Iterator[VolumeName]:
        """Stream the names of those that exist, sorted within a directory."""

    def exists(self, name: VolumeName) -> bool:
        """Whether there is a volume of this kind and name."""

    def statuses(self) -> Iterator[VolumeStatus]:
        """Look at every one, damaged ones included."""

    def status(self, name: VolumeName) -> VolumeStatus:
        """Look at one that exists."""

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Make one that exists usable; idempotent."""

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """See that one that exists is not used any more; idempotent.

        Raises:
            InUseError: It is used.
        """

    def remove(self, name: VolumeName, *, force: bool) -> bool:
        """Remove whatever there is of this name; gives whether there was anything.

        Raises:
            InUseError: It is used, and ``force`` is not set.
        """

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure one that exists."""

    def recover(self) -> Iterator[Recovered]:
        """Finish or undo what killed operations left; takes locks itself."""
