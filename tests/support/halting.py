"""Work of this process, halted in the middle of something."""

__all__ = ["Halt", "halted"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cas.fsops.effects import Effect, observed
from tests.support.daemon import WAIT_SECONDS


class Halt:
    """A place where work stands still until it may go on."""

    def __init__(self, effect: Effect, part: str) -> None:
        self._effect = effect
        self._part = part
        self._reached = threading.Event()
        self._released = threading.Event()

    def look(self, effect: Effect, path: str) -> None:
        """Stand still here, the first time that it is the place."""
        if effect is self._effect and self._part in path and not self._reached.is_set():
            self._reached.set()
            assert self._released.wait(WAIT_SECONDS)

    def await_reached(self) -> None:
        """Wait until the work stands still."""
        assert self._reached.wait(WAIT_SECONDS), "the work never came here"

    def release(self) -> None:
        """Let it go on."""
        self._released.set()


@contextmanager
def halted(effect: Effect, part: str = "") -> Iterator[Halt]:
    """Let the first work that is about to make this change, on such a path, stand still."""
    halt = Halt(effect, part)
    try:
        with observed(halt.look):
            yield halt
    finally:
        halt.release()
