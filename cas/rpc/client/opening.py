"""A service that was started just now: its socket is there before its store is open."""

__all__ = ["await_store"]

import time
from collections.abc import Callable

from cas.errors import ServiceOpeningError
from cas.rpc.client.facts import ServiceFacts

_LOOK_SECONDS = 0.1
_SILENT_SECONDS = 1.0
"""Until whoever waits is told; a start without anything to recover takes less."""


def await_store(
    ask: Callable[[], ServiceFacts], *, seconds: float, on_wait: Callable[[], object]
) -> ServiceFacts:
    """Ask a service who it is, again and again while it opens its store.

    Args:
        ask: Does it once.
        seconds: How long; 0 for once.
        on_wait: Called once if that takes more than a moment.

    Raises:
        ServiceOpeningError: It still opens its store.
        CasError: What else ``ask`` raises, at once.
    """
    begun = time.monotonic()
    silent_until = begun + _SILENT_SECONDS
    while True:
        try:
            return ask()
        except ServiceOpeningError:
            now = time.monotonic()
            if now >= begun + seconds:
                raise
        if now >= silent_until:
            on_wait()
            silent_until = float("inf")
        time.sleep(_LOOK_SECONDS)
