"""How many calls may do something at once."""

__all__ = ["Gate"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cas.model.cancellation import Cancellation

_POLL_SECONDS = 0.1


class Gate:
    """Lets so many in at once; the others wait.

    Args:
        places: How many.
    """

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)

    @contextmanager
    def entered(self, cancel: Cancellation) -> Iterator[None]:
        """Wait for a place and hold it as long as the context lasts.

        Raises:
            InterruptedOperationError: ``cancel`` was set while waiting.
        """
        while not self._places.acquire(timeout=_POLL_SECONDS):
            cancel.check()
        try:
            yield
        finally:
            self._places.release()
