"""One disk volume on its way: what every step of its making is given."""

__all__ = ["DiskWork"]

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from cas.fsops.draft import DraftFile
from cas.model.cancellation import Cancellation
from cas.model.disk.record import DiskRequest
from cas.model.layout import DiskPaths
from cas.model.progress import Progress
from cas.store.leasing import Lease
from cas.store.space import Reservation, Space
from cas.volumes.disk.source import Meter

_ACTION = "copy"
_REPORTED_BYTES = 16 * 1024 * 1024
"""The ledger hears of what was allocated in steps of this size."""


@dataclass(frozen=True, slots=True)
class DiskWork:
    """The making of one disk.

    Args:
        paths: Of the volume.
        request: What it is to be.
        lease: Holds the blobs of its image.
        space: Where room is promised.
        cancel: Stops the work.
        progress: Told of bytes that are copied, unpacked or converted.
    """

    paths: DiskPaths
    request: DiskRequest
    lease: Lease
    space: Space
    cancel: Cancellation
    progress: Progress

    @property
    def item(self) -> str:
        """What progress calls it."""
        return str(self.paths.name)

    def reserved(self, size: int) -> AbstractContextManager[Reservation]:
        """Hold a promise of room where the volume will be.

        Raises:
            NoSpaceError: There is not that much.
        """
        return self.space.reserve(
            size, f"preparing volume {self.paths.name}", at=self.paths.directory
        )

    @contextmanager
    def told(self, total: int) -> Iterator[None]:
        """Tell that so many bytes are gone through now."""
        self.progress.start(_ACTION, self.item, total)
        try:
            yield
        finally:
            self.progress.finish(_ACTION, self.item)

    def advance(self, amount: int) -> None:
        """Tell that so many more bytes are done, and look whether to go on.

        Raises:
            InterruptedOperationError: Somebody asked to stop.
            LeaseNotFoundError: The lease is gone.
        """
        self.cancel.check()
        self.lease.keep_alive()
        self.progress.advance(_ACTION, self.item, amount)

    def meter(self, promise: Reservation, draft: DraftFile) -> Meter:
        """Give what is told of every chunk while ``draft`` is filled."""
        reported = 0

        def metered(amount: int) -> None:
            nonlocal reported
            self.advance(amount)
            allocated = draft.allocated
            if allocated - reported >= _REPORTED_BYTES:
                promise.consume(allocated - reported)
                reported = allocated

        return metered
