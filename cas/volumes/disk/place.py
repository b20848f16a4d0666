"""What there must be of a store to work on disks that exist."""

__all__ = ["DiskPlace"]

from typing import Protocol

from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.store.ports import EventPublisher


class DiskPlace(Protocol):
    """Where disks are; :class:`cas.store.backing.Backing` is one."""

    @property
    def layout(self) -> Layout:
        """The paths."""

    @property
    def limits(self) -> Limits:
        """Against hostile input."""

    @property
    def events(self) -> EventPublisher:
        """Told what happens."""
