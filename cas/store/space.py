"""Room on the store's file system, promised before work begins.

A ledger of small files in the run directory, one per piece of work, each with the bytes it will
still need. The lock that the worker holds on its file says that it lives; files of dead workers
are removed by whoever looks next. The ledger knows promises only: what is written already shows in
the file system itself.
"""

__all__ = ["Placed", "Reservation", "Space"]

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cas.errors import LockTimeoutError, NoSpaceError
from cas.fsops.durable import remove_file
from cas.fsops.locks import FileLock
from cas.fsops.translation import translated
from cas.fsops.trees import free_bytes
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.store.locking import Locks

_log = logging.getLogger(__name__)


class Placed(Protocol):
    """What tells where a store is; :class:`cas.store.backing.Backing` does."""

    @property
    def layout(self) -> Layout:
        """Its paths."""

    @property
    def limits(self) -> Limits:
        """Its limits."""

    @property
    def blobs_directory(self) -> Path | None:
        """Where its blobs are, if this process reaches that."""


class Reservation:
    """A promise of room; made by :meth:`Space.reserve`."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._left = size
        self._write()

    def consume(self, amount: int) -> None:
        """Tell that ``amount`` bytes of the promise are allocated on the file system by now.

        More than was promised is allowed and counts as all of it.
        """
        self._left = max(0, self._left - amount)
        self._write()

    def _write(self) -> None:
        # In place, since the lock is on this inode; of fixed width, so that a reader never meets
        # half a number; unsynced, since a ledger does not survive a boot.
        with translated("write", self._path), self._path.open("r+b", buffering=0) as file:
            file.write(b"%020d\n" % self._left)


class Space:
    """The room of one store.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Placed) -> None:
        self._backing = backing
        self._locks = Locks(backing.layout)
        self._ledger = backing.layout.reservations

    @contextmanager
    def reserve(self, size: int, what: str, *, at: Path | None = None) -> Iterator[Reservation]:
        """Hold a promise of ``size`` bytes for the time of the context.

        Args:
            size: Bytes that the work will allocate.
            what: The work, as it is called in the error.
            at: A directory on the file system where; None for the store's. On another one the
                promises to others do not count, which are all taken for the store's.

        Raises:
            NoSpaceError: With the promises to others and the room that new work must leave, that
                much is not free; ``missing`` in its details says by how many bytes.
        """
        path = self._ledger / f"{secrets.token_hex(8)}.reservation"
        held = FileLock(path)
        with self._locks.ledger():
            self._require(size, what, at or self._place())
            reservation = self._enter(held, path, size)
        try:
            yield reservation
        finally:
            remove_file(path, sync=False)
            held.release()

    def available(self, *, at: Path | None = None) -> int:
        """Bytes that could be reserved now, 0 or more; see :meth:`reserve` for ``at``."""
        with self._locks.ledger():
            return max(0, self._uncommitted(at or self._place()))

    def balance(self, *, at: Path | None = None) -> int:
        """Bytes that could be reserved now; below 0, what must come free before any can.

        For whoever reckons with room that is not there yet; see :meth:`reserve` for ``at``.

        Raises:
            NoSpaceError: Nothing at all is free. Then nobody can tell how much must come free
                first: what a file system keeps for root may be used as well.
        """
        place = at or self._place()
        with self._locks.ledger():
            if free_bytes(place) == 0:
                raise NoSpaceError(
                    f"the file system of {str(place)!r} is full to its last block, so that it "
                    "cannot be told how much must come free; make a little room, for example with "
                    "`cas prune`",
                    path=place,
                )
            return self._uncommitted(place)

    def sweep(self) -> None:
        """Drop the promises to dead processes; part of recovery, else done by the next promise."""
        with self._locks.ledger():
            for _ in self._promises():
                pass

    def _require(self, size: int, what: str, place: Path) -> None:
        missing = size - self._uncommitted(place)
        if missing > 0:
            raise NoSpaceError(
                f"{what} needs {size} bytes, {missing} more than {str(place)!r} can give; "
                "make room, for example with `cas prune`",
                path=place,
                needed=size,
                missing=missing,
            )

    def _uncommitted(self, place: Path) -> int:
        promised = sum(self._promises())
        with translated("inspect", place):
            if place.stat().st_dev != self._place().stat().st_dev:
                promised = 0
        return free_bytes(place) - self._backing.limits.min_free_bytes - promised

    def _place(self) -> Path:
        layout = self._backing.layout
        blobs = self._backing.blobs_directory
        candidates = [layout.case, layout.vault, layout.persist]
        if blobs is not None:
            candidates = [blobs, *blobs.parents]
        return next((path for path in candidates if path.is_dir()), layout.persist)

    def _enter(self, held: FileLock, path: Path, size: int) -> Reservation:
        held.acquire(timeout_seconds=0)
        try:
            return Reservation(path, size)
        except BaseException:
            held.release()
            raise

    def _promises(self) -> Iterator[int]:
        if not self._ledger.is_dir():
            return
        for path in self._ledger.glob("*.reservation"):
            # Whoever finishes between the two looks needs nothing any more.
            if self._is_alive(path):
                with suppress(FileNotFoundError):
                    yield int(path.read_text() or 0)

    def _is_alive(self, path: Path) -> bool:
        abandoned = FileLock(path)
        try:
            abandoned.acquire(timeout_seconds=0)
        except LockTimeoutError:
            return True
        try:
            remove_file(path, sync=False)
        finally:
            abandoned.release()
        _log.info("reservation of a dead process dropped path=%s", path)
        return False
