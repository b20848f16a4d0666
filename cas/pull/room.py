"""Room for what is in transfer, promised before the first byte."""

__all__ = ["Room"]

from collections.abc import Iterator
from contextlib import contextmanager

from cas.store.space import Reservation, Space


class Room:
    """A promise that shrinks while what it is for arrives.

    Args:
        space: Of the store's file system.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._reservation: Reservation | None = None

    @contextmanager
    def of(self, size: int, what: str) -> Iterator[None]:
        """Hold ``size`` bytes for the time of the context; raises as ``Space.reserve``."""
        with self._space.reserve(size, what) as reservation:
            self._reservation = reservation
            try:
                yield
            finally:
                self._reservation = None

    def use(self, amount: int) -> None:
        """Tell that ``amount`` bytes more are on the disk; from one thread at a time."""
        reservation = self._reservation
        if reservation is not None and amount:
            reservation.consume(amount)
