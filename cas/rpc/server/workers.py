"""Work that goes on in one thread while another one talks to the caller."""

__all__ = ["Workers"]

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

_Result = TypeVar("_Result")


class Workers:
    """A bounded number of threads.

    Args:
        count: How many at most.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "cas-rpc-work")

    def begin(self, work: Callable[[], _Result]) -> "Future[_Result]":
        """Let a thread work; what holds for the caller's context holds for the work."""
        return self._pool.submit(copy_context().run, work)

    def close(self) -> None:
        """Take no more; running work ends by itself. Idempotent."""
        self._pool.shutdown(wait=False)
