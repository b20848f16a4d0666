"""What container volumes and disk volumes have in common, as one port."""

__all__ = ["VolumeKind", "kind_of"]

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from cas.errors import VolumeNotFoundError
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.volumes.status import Recovered, VolumeStatus, VolumeUsage


class _Known(Protocol):
    def exists(self, name: VolumeName) -> bool:
        """Whether there is a volume of this kind and name."""


_Kind = TypeVar("_Kind", bound=_Known)


def kind_of(backing: Backing, kinds: Iterable[_Kind], name: VolumeName) -> _Kind:
    """Give the one of several kinds that a volume is of.

    Raises:
        VolumeNotFoundError: There is no such volume.
        VaultLockedError: The vault is locked, so that there may be one.
    """
    for kind in kinds:
        if kind.exists(name):
            return kind
    backing.check_open()
    raise VolumeNotFoundError(
        f"there is no volume {name}; 'cas volume ls' lists those that are", name=name
    )


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
