"""The number of a call, so that an operator can tell what belongs together."""

__all__ = ["begin_request", "current_request"]

from contextvars import ContextVar
from itertools import count

_numbers = count(1)
_current: ContextVar[int | None] = ContextVar("cas-request", default=None)


def begin_request() -> None:
    """Give the current context a number of its own, which work that it begins shares."""
    _current.set(next(_numbers))


def current_request() -> int | None:
    """The number of the call that is served here; None outside of calls."""
    return _current.get()
