"""How many calls may do something at once."""

__all__ = ["Gate"]

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cas.model.cancellation import Cancellation

_POLL_SECONDS = 0.1


class Gate:
    """Lets so many in at once; the others wait, and enter in the order in which they came.

    Args:
        places: How many.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def entered(self, cancel: Cancellation) -> Iterator[None]:
        """Wait for a place and hold it as long as the context lasts.

        Raises:
            InterruptedOperationError: ``cancel`` was set while waiting.
        """
        self._enter(cancel)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        with self._changed:
            return bool(self._waiting)

    def _enter(self, cancel: Cancellation) -> None:
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while not self._free or self._waiting[0] is not turn:
                    cancel.check()
                    self._changed.wait(_POLL_SECONDS)
                self._free -= 1
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
