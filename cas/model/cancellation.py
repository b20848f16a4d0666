"""How a caller stops work that runs in another thread."""

__all__ = [
    "Cancellation",
    "JointCancellation",
    "begin_operation",
    "check_operation",
    "current_operation",
    "while_wanted",
]

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from cas.errors import InterruptedOperationError

_Item = TypeVar("_Item")


class Cancellation:
    """A flag that long operations look at between two chunks.

    Setting it is final, may be done from any thread or signal handler and more than once. The
    operation then unwinds as after any error: what it had begun is undone.
    """

    __slots__ = ("_event", "_listeners", "_set_at")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._set_at: float | None = None
        self._listeners: dict[object, Callable[[], None]] = {}

    def set(self) -> None:
        """Ask every operation that was given this flag to stop; returns at once."""
        if self._set_at is None:
            self._set_at = time.monotonic()
        self._event.set()
        # No lock: a signal handler may have interrupted whoever holds it.
        for listener in tuple(self._listeners.values()):
            listener()

    @contextmanager
    def notifying(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call ``listener`` when somebody asks to stop during the block, or did before.

        It runs in the thread, or signal handler, that asks; it must not raise or wait, and may
        be called more than once.
        """
        key = object()
        self._listeners[key] = listener
        try:
            if self.is_set():
                listener()
            yield
        finally:
            del self._listeners[key]

    def wait(self, seconds: float) -> bool:
        """Wait until somebody asks to stop, or the time is over; tells whether somebody did."""
        asked = threading.Event()
        with self.notifying(asked.set):
            return asked.wait(seconds)

    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def seconds_since(self) -> float | None:
        """How long ago somebody asked to stop first; None if nobody did."""
        return None if self._set_at is None else time.monotonic() - self._set_at

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

    def seconds_since(self) -> float | None:
        """How long ago somebody asked to stop either first; None if nobody did."""
        own = super().seconds_since()
        others = None if self._other is None else self._other.seconds_since()
        return max((each for each in (own, others) if each is not None), default=None)

    @contextmanager
    def notifying(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call ``listener`` when somebody asks to stop either."""
        with ExitStack() as both:
            if self._other is not None:
                both.enter_context(self._other.notifying(listener))
            both.enter_context(super().notifying(listener))
            yield


_operation: ContextVar[Cancellation | None] = ContextVar("cas_operation", default=None)


def begin_operation(cancel: Cancellation) -> None:
    """Let everything that this context does from now on belong to an operation with this flag.

    What only waits (for a lock, for containerd) or only looks (at many files) finds it there, so
    that a flag need not be handed through every call. Threads that work for the operation have to
    be given a copy of the context.
    """
    _operation.set(cancel)


def current_operation() -> Cancellation | None:
    """Give the flag of the operation that this context belongs to; None if to none."""
    return _operation.get()


def check_operation() -> None:
    """Return if nobody asked this context's operation to stop.

    Raises:
        InterruptedOperationError: Somebody did.
    """
    operation = _operation.get()
    if operation is not None:
        operation.check()


def while_wanted(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items as long as nobody asked this context's operation to stop.

    Raises:
        InterruptedOperationError: Somebody did.
    """
    for item in items:
        check_operation()
        yield item
