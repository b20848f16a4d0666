"""Room on the file system for what is in transfer, promised by whoever keeps the ledger."""

__all__ = ["NO_LEDGER", "Allotment", "Promise", "Room"]

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, Self

from cas.errors import NoSpaceError

_BLOCK_BYTES = 64 * 1024 * 1024
"""Room is asked for in such steps while the size of an object is unknown."""


class Promise(Protocol):
    """Room that was promised."""

    def consume(self, amount: int, /) -> None:
        """Tell that ``amount`` bytes of it are allocated by now."""


class Room(Protocol):
    """Gives promises; ``cas.store.space.Space`` is one."""

    def reserve(self, size: int, what: str, /) -> AbstractContextManager[Promise]:
        """Promise ``size`` bytes for a block, or raise ``NoSpaceError``."""


class _NoLedger:
    @contextmanager
    def reserve(self, size: int, what: str, /) -> Iterator[Promise]:  # noqa: ARG002 - the protocol's
        yield self

    def consume(self, amount: int, /) -> None:
        pass


NO_LEDGER: Room = _NoLedger()
"""Promises everything; the file system itself says no."""


class Allotment:
    """The room of one transfer; leaving its ``with`` block gives back what was not used.

    Args:
        room: Who promises.
        what: The transfer, as the error calls it.
    """

    def __init__(self, room: Room, what: str) -> None:
        self._room = room
        self._what = what
        self._held = ExitStack()
        self._promise: Promise | None = None
        self._left = 0

    def promise(self, size: int) -> None:
        """Have room for ``size`` bytes more, instead of what was promised before.

        Raises:
            NoSpaceError: There is not that much; nothing is promised then.
        """
        self.close()
        self._promise = self._held.enter_context(self._room.reserve(size, self._what))
        self._left = size

    def use(self, amount: int) -> None:
        """Tell that ``amount`` bytes are about to be written.

        Raises:
            NoSpaceError: They go beyond the promise, and there is no more room.
        """
        if self._promise is None or amount > self._left:
            self._promise_more(amount)
        if self._promise is not None:
            self._promise.consume(amount)
        self._left -= amount

    def _promise_more(self, amount: int) -> None:
        try:
            self.promise(max(amount, _BLOCK_BYTES))
        except NoSpaceError:  # the rest of an object may be smaller than a step
            self.promise(amount)

    def close(self) -> None:
        """Give the promise back. Idempotent."""
        self._promise, self._left = None, 0
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
