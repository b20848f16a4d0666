"""Progress of several downloads with their sum beside them."""

__all__ = ["TotalProgress"]

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cas.model.progress import Progress

_DOWNLOAD = "download"


class TotalProgress:
    """Passes progress on, and adds up what is downloaded; a :class:`cas.model.progress.Progress`.

    Args:
        progress: Told of everything.
        action: Of the sum.
        item: Of the sum.
    """

    def __init__(self, progress: Progress, action: str, item: str) -> None:
        self._progress = progress
        self._sum = (action, item)
        self._guard = threading.Lock()
        self._counted: set[str] = set()
        self._running = False

    @contextmanager
    def of(self, total: int) -> Iterator[None]:
        """Show the sum, out of so many bytes, until the block ends."""
        self._progress.start(*self._sum, total)
        self._running = True
        try:
            yield
        finally:
            self._running = False
            self._progress.finish(*self._sum)

    def skip(self, item: str, size: int) -> None:
        """Count an item that need not be downloaded, once."""
        with self._guard:
            new = self._running and item not in self._counted
            if new:
                self._counted.add(item)
        if new:
            self._progress.advance(*self._sum, size)

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        """See :class:`cas.model.progress.Progress`."""
        if action == _DOWNLOAD:
            self._counted.add(item)
        self._progress.start(action, item, total, unit)

    def advance(self, action: str, item: str, amount: int) -> None:
        """See :class:`cas.model.progress.Progress`."""
        self._progress.advance(action, item, amount)
        if action == _DOWNLOAD and self._running:
            self._progress.advance(*self._sum, amount)

    def finish(self, action: str, item: str) -> None:
        """See :class:`cas.model.progress.Progress`."""
        self._progress.finish(action, item)
