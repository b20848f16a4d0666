"""Waiting for something to become true instead of sleeping."""

__all__ = ["wait_for"]

import time
from collections.abc import Callable

from tests.support.daemon import WAIT_SECONDS

_PAUSE_SECONDS = 0.01


def wait_for(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Return as soon as ``condition`` holds; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(_PAUSE_SECONDS)
