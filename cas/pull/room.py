"""Room for what is in transfer, promised before it comes."""

__all__ = ["Room"]

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cas.datastores.room import Allotment
from cas.errors import CasError, InterruptedOperationError
from cas.model.cancellation import Cancellation, JointCancellation
from cas.store.space import Space

_log = logging.getLogger(__name__)


class Room:
    """A promise that shrinks while what it is for arrives.

    Args:
        space: Of the store's file system.
        cancel: Ends the work that the promise is for.
    """

    def __init__(self, space: Space, cancel: Cancellation | None = None) -> None:
        self._space = space
        self.stop = JointCancellation(cancel)
        """Ends the work; set as well when there is no room for more of it."""
        self._consume: Callable[[int], None] | None = None
        self._refusal: CasError | None = None

    @contextmanager
    def of(self, size: int | None, what: str) -> Iterator[None]:
        """Hold room for the time of the context.

        Args:
            size: Bytes that will come. None, if nobody knows, holds some in advance of what came.
            what: The work, as it is called in the error.

        Raises:
            NoSpaceError: As ``Space.reserve``; also for work of unknown size that was stopped
                because there is no room for more.
        """
        if size is not None:
            with self._space.reserve(size, what) as reservation:
                yield from self._held(reservation.consume)
            return
        with Allotment(self._space, what) as allotment:
            allotment.use(0)
            yield from self._held(allotment.use)

    def _held(self, consume: Callable[[int], None]) -> Iterator[None]:
        self._consume = consume
        try:
            yield
        except InterruptedOperationError:
            if self._refusal is not None:
                raise self._refusal from None
            raise
        finally:
            self._consume = None
        if self._refusal is not None:  # the work went on: what it had was promised before
            _log.warning("space ledger not kept error=%s", self._refusal)

    def use(self, amount: int) -> None:
        """Tell that ``amount`` bytes more are on the disk; from one thread at a time."""
        consume = self._consume
        if consume is None or not amount:
            return
        try:
            consume(amount)
        except CasError as error:  # in the thread that tells of it, not in that of the work
            self._refusal = error
            self.stop.set()
