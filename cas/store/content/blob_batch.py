"""Several blobs of one image into the store at once, all or none acknowledged."""

__all__ = ["BlobBatch"]

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from itertools import groupby
from typing import TypeVar

from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation, JointCancellation
from cas.store.image.document_walk import PlannedBlob
from cas.store.workers import WorkerPool

_Item = TypeVar("_Item")


class BlobBatch:
    """Runs a step for each of several items, some at a time.

    Args:
        workers: How many at once.
        cancel: Stops the work.
    """

    def __init__(self, workers: int, cancel: Cancellation | None) -> None:
        self._workers = workers
        self._cancel = cancel

    def by_level(
        self, blobs: Sequence[PlannedBlob], step: Callable[[PlannedBlob, Cancellation], None]
    ) -> None:
        """Run ``step`` for all blobs, those of a level only after all below it; see :meth:`run`."""
        for _, level in groupby(blobs, key=lambda blob: blob.level):
            self.run(list(level), step)

    def run(self, items: Iterable[_Item], step: Callable[[_Item, Cancellation], None]) -> None:
        """Run ``step`` for all items; returns when none is at work any more.

        The first failure stops the others, which see it in the flag that each is given.

        Raises:
            CasError: Of the first step that failed.
            InterruptedOperationError: The caller asked to stop.
        """
        stop = JointCancellation(self._cancel)
        with WorkerPool(self._workers, "cas-import") as pool:
            futures: list[Future[None]] = []
            try:
                futures.extend(pool.submit(step, item, stop) for item in items)
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # whoever still works does so for nothing
                pool.shutdown(cancel_futures=True)
        _raise_first(futures)


def _raise_first(futures: Sequence[Future[None]]) -> None:
    """Raise the failure that stopped the others rather than one of theirs."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    failures = [error for error in errors if error is not None]
    for error in failures:
        if not isinstance(error, InterruptedOperationError):
            raise error
    if failures:
        raise failures[0]
