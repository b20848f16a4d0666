"""How long a call to containerd may go on once somebody wants its operation stopped.

A call that is under way then gets some seconds to end by itself, so that its effect is known and
can be undone; only a containerd that hangs takes longer, and is waited for no more. Calls that are
made after the stop are those that undo: they share a minute. One that only looks has no effect to
know of, and ends at once. Without an operation (see
:func:`cas.model.cancellation.begin_operation`) nothing of this applies.
"""

__all__ = ["ending_with_operation", "is_stopped", "patient_seconds"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from cas.model.cancellation import current_operation

_UNDER_WAY_SECONDS = 5.0
_UNDOING_SECONDS = 60.0
_LEAST_SECONDS = 2.0
"""For each of the calls that undo, even if those before took the whole minute."""


class _Call(Protocol):
    def cancel(self) -> object: ...


def is_stopped() -> bool:
    """Whether this context belongs to an operation that somebody wants stopped."""
    operation = current_operation()
    return operation is not None and operation.is_set()


def patient_seconds(seconds: float) -> float:
    """Give the deadline of a call that begins now and otherwise would have ``seconds``."""
    operation = current_operation()
    stopped = None if operation is None else operation.seconds_since()
    if stopped is None:
        return seconds
    return min(seconds, max(_LEAST_SECONDS, _UNDOING_SECONDS - stopped))


@contextmanager
def ending_with_operation(call: _Call, *, looks: bool = False) -> Iterator[None]:
    """Cancel a call that is under way too long after somebody wants its operation stopped.

    Args:
        call: Which.
        looks: It changes nothing and undoes nothing, so that a moment is too long.
    """
    operation = current_operation()
    if operation is None:
        yield
        return
    # One that undoes has its deadline; but it may also have been stopped since that was given.
    seconds = _UNDOING_SECONDS if operation.is_set() else _UNDER_WAY_SECONDS
    if looks:
        seconds = 0.0
    timers: list[threading.Timer] = []

    def count_down() -> None:
        if not timers:
            timer = threading.Timer(seconds, call.cancel)
            timer.daemon = True
            timers.append(timer)
            timer.start()

    try:
        with operation.notifying(count_down):
            yield
    finally:
        for timer in timers:
            timer.cancel()
