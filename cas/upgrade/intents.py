"""Tells the journal what is about to be done to a thing, and what was."""

__all__ = ["Intents"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from cas.errors import CasError, StorageError
from cas.upgrade.device import Device
from cas.upgrade.items import Planned
from cas.upgrade.journal import Entry, Journal, Step, as_numbers


class Intents:
    """The entries of one run.

    Args:
        device: Where.
        journal: Open for writing.
        clock: Gives the current time, aware.
    """

    def __init__(self, device: Device, journal: Journal, clock: Callable[[], datetime]) -> None:
        self._device = device
        self._journal = journal
        self._clock = clock

    def intend(self, planned: Planned, inode: int = 0, digest: str = "") -> Entry:
        """Note what happens next, durably.

        Args:
            planned: What is done; its target is None for what is removed.
            inode: That gets the target's name.
            digest: Of original and copy.

        Raises:
            NoSpaceError: No room; nothing may be done then.
            StorageError: Any other failed system call.
        """
        target = planned.target
        entry = Entry(
            step=Step.INTENDED,
            time=self._now(),
            kind=planned.found.kind,
            source=self._device.told(planned.found.path),
            target="" if target is None else self._device.told(target),
            action=planned.action,
            reason=planned.reason,
            identity=as_numbers(planned.found.identity),
            inode=inode,
            size=planned.found.size,
            digest_before=digest,
            digest_after=digest,
        )
        self._journal.add(entry)
        return entry

    def done(self, entry: Entry) -> None:
        """Note that it was done, durably.

        Raises:
            NoSpaceError: No room; the next run notes it.
            StorageError: Any other failed system call.
        """
        self._note(entry, Step.DONE)

    @contextmanager
    def naming(self, entry: Entry, target: Path) -> Iterator[None]:
        """Note that nothing was done if the block fails, unless the name was given all the same.

        That it was can be so if only the last sync failed; the next run then goes on from there.
        """
        try:
            yield
        except CasError:
            if self._device.inode(target) != entry.inode:
                self._note(entry, Step.UNDONE)
            raise

    def find(self, planned: Planned) -> Entry:
        """Give the last entry about something.

        Raises:
            StorageError: There is none.
        """
        source, target = planned.found.path, planned.target
        told = "" if target is None else self._device.told(target)
        entry = self._journal.find(self._device.told(source), told)
        if entry is None:
            raise StorageError(f"the journal has nothing about {str(source)!r}", path=source)
        return entry

    def _note(self, entry: Entry, step: Step) -> None:
        self._journal.add(msgspec.structs.replace(entry, step=step, time=self._now()))

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")
