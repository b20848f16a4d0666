"""Waiting for something to become true instead of sleeping."""

__all__ = ["wait_for"]

import time
from collections.abc import Callable

_LONGEST_SECONDS = 100.0
"""Little less than a test may take: how fast a machine is decides nothing."""
_PAUSE_SECONDS = 0.01


def wait_for(condition: Callable[[], object], seconds: float = _LONGEST_SECONDS) -> None:
    """Return as soon as ``condition`` holds; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(_PAUSE_SECONDS)
