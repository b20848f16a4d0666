"""How a caller stops work that runs in another thread."""

__all__ = ["Cancellation", "JointCancellation"]

import threading

from cas.errors import InterruptedOperationError


class Cancellation:
    """A flag that long operations look at between two chunks.

    Setting it is final, may be done from any thread or signal handler and more than once. The
    operation then unwinds as after any error: what it had begun is undone.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask every operation that was given this flag to stop; returns at once."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Return if nobody asked to stop.

        Raises:
            InterruptedOperationError: Somebody did.
        """
        if self.is_set():
            raise InterruptedOperationError("the operation was stopped by its caller")


class JointCancellation(Cancellation):
    """A flag that is also set when another one is; setting it leaves that one alone."""

    __slots__ = ("_other",)

    def __init__(self, other: Cancellation | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """Whether somebody asked to stop either."""
        return super().is_set() or (self._other is not None and self._other.is_set())
