"""Syncing a file while it grows, and noting what is on the device; one thread per transfer.

The record is never ahead of the data: it is written after the sync, with the size that the file
had before it.
"""

__all__ = ["Checkpoints"]

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from cas.errors import StorageError
from cas.fsops.inode import StagedInode


class Checkpoints:
    """Leaving its ``with`` block waits for the one under way.

    Args:
        file: Synced in the background; may be written to meanwhile.
        note: Called with a size once that many bytes are durable.
    """

    def __init__(self, file: StagedInode, note: Callable[[int], None]) -> None:
        self._file = file
        self._note = note
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None
        self.durable = file.size
        """Bytes that are on the device and noted, or were when it began."""

    def begin(self) -> bool:
        """Begin one for what the file holds now; False if the last one still runs.

        Raises:
            NoSpaceError: The last one found no room for its record.
            StorageError: The last one failed; the file cannot be trusted any more.
        """
        if self._running is not None and not self._running.done():
            return False
        self.wait()
        self._running = self._pool.submit(self._checkpoint, self._file.size)
        return True

    def wait(self) -> None:
        """Wait for the one under way; raises as :meth:`begin`."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _checkpoint(self, size: int) -> None:
        self._file.sync()
        self._note(size)
        self.durable = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        failure = self._running.exception() if self._running is not None else None
        if isinstance(failure, StorageError):
            raise failure  # whatever else happened: nothing of the file may be kept
