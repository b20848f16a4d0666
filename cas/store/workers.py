"""Threads that work for whoever hands them work."""

__all__ = ["WorkerPool"]

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class WorkerPool(ThreadPoolExecutor):
    """A pool whose work belongs to the operation of its caller.

    See :func:`cas.model.cancellation.begin_operation`.
    """

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> "Future[_Result]":
        """Let a thread call ``fn`` in a copy of the caller's context."""
        return super().submit(copy_context().run, fn, *args, **kwargs)
