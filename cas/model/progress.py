"""How long work tells what it does, without knowing who watches."""

__all__ = ["NO_PROGRESS", "Progress", "counted"]

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

_Thing = TypeVar("_Thing")


class Progress(Protocol):
    """Receiver of progress; called from several threads, must not raise and must return at once.

    ``item`` names the thing worked on (a digest, a volume); ``action`` is a word such as
    ``ingest``, ``unpack``, ``read``; ``total`` and ``amount`` are bytes unless ``unit`` differs.
    """

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        """``item`` begins; ``total`` is None when unknown."""

    def advance(self, action: str, item: str, amount: int) -> None:
        """``amount`` more of ``item`` is done."""

    def finish(self, action: str, item: str) -> None:
        """``item`` ended, well or not."""


class _NoProgress:
    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        pass

    def advance(self, action: str, item: str, amount: int) -> None:
        pass

    def finish(self, action: str, item: str) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()
"""Nobody watches."""


def counted(
    things: Iterable[_Thing], progress: Progress, action: str, item: str, total: int | None = None
) -> Iterator[_Thing]:
    """Give things, and tell of each when the next one is asked for."""
    progress.start(action, item, total, unit="items")
    try:
        for thing in things:
            yield thing
            progress.advance(action, item, 1)
    finally:
        progress.finish(action, item)
