"""A service that was started just now: its socket is there before its store is open.

Whoever asks for the store meanwhile is refused before anything of the call has begun, so that any
call may be made again.
"""

__all__ = ["NO_WAIT", "Wait", "ask_again"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cas.errors import ServiceOpeningError, ServiceUnavailableError
from cas.model.cancellation import Cancellation

_LOOK_SECONDS = 0.1
_SILENT_SECONDS = 1.0
"""Until whoever waits is told; a start without anything to recover takes less."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Wait:
    """How patient callers are.

    Args:
        seconds: How long they ask again; 0 for once.
        on_wait: Called once if that takes more than a moment.
    """

    seconds: float = 0.0
    on_wait: Callable[[], object] = lambda: None


NO_WAIT = Wait()


def ask_again(
    ask: Callable[[], _Answer],
    *,
    wait: Wait,
    refused: type[ServiceUnavailableError] = ServiceOpeningError,
    cancel: Cancellation | None = None,
) -> _Answer:
    """Ask a service again and again while it refuses.

    Args:
        ask: Does it once; nothing has begun when it is refused.
        wait: How long.
        refused: With what it does.
        cancel: Ends the wait.

    Raises:
        ServiceUnavailableError: Of the kind ``refused``: the time is over.
        InterruptedOperationError: ``cancel`` was set.
        CasError: What else ``ask`` raises, at once.
    """
    cancel = cancel or Cancellation()
    begun = time.monotonic()
    silent_until = begun + _SILENT_SECONDS
    while True:
        try:
            return ask()
        except refused:
            now = time.monotonic()
            if now >= begun + wait.seconds:
                raise
        if now >= silent_until:
            wait.on_wait()
            silent_until = float("inf")
        cancel.wait(_LOOK_SECONDS)
        cancel.check()
