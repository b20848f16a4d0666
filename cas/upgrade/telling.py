"""Tells of the work on one thing after the other, and ends it between two chunks."""

__all__ = ["Telling"]

from collections.abc import Callable
from typing import TypeVar

from cas.model.cancellation import Cancellation
from cas.model.progress import Progress
from cas.upgrade.items import Planned

_Made = TypeVar("_Made")


class Telling:
    """What a run tells and asks while it works.

    Args:
        progress: Told of what is done.
        cancel: Ends it.
    """

    def __init__(self, progress: Progress, cancel: Cancellation) -> None:
        self._progress = progress
        self._cancel = cancel

    def check(self) -> None:
        """Return unless the work is to end.

        Raises:
            InterruptedOperationError: It is.
        """
        self._cancel.check()

    def told(
        self,
        action: str,
        planned: Planned,
        work: Callable[[Callable[[int], None]], _Made],
        unit: str = "B",
    ) -> _Made:
        """Do some work on something, which is given what to call as it goes on.

        Args:
            action: What is done.
            planned: To what.
            work: Gives what this gives.
            unit: Of what it advances by; bytes are told with their total.

        Raises:
            InterruptedOperationError: The work is to end.
        """
        item = planned.found.path.name

        def advance(amount: int) -> None:
            self._cancel.check()
            self._progress.advance(action, item, amount)

        total = planned.found.size if unit == "B" else None
        self._progress.start(action, item, total, unit)
        try:
            return work(advance)
        finally:
            self._progress.finish(action, item)
