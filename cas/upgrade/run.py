"""One run: everything that is planned is done or left, held where it failed, and reported."""

__all__ = ["Run"]

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from cas.errors import CheckpointError
from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.progress import Progress, counted
from cas.model.settings import Settings
from cas.upgrade.checkpoint_files import ReadCheckpoint
from cas.upgrade.conversion import Conversion
from cas.upgrade.device import Device
from cas.upgrade.emptied import remove_emptied
from cas.upgrade.holding import Holding
from cas.upgrade.intents import Intents
from cas.upgrade.items import Action, Kind, Outcome, Planned, Reason, Result
from cas.upgrade.journal import Journal, Step
from cas.upgrade.merge_account import MergeAccount, account_bytes
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.order import arrange, peak_bytes
from cas.upgrade.report import ReportFile, Summary, Tally
from cas.upgrade.telling import Telling


class Run:
    """A run; the caller holds the lock of runs.

    Args:
        settings: Where and how.
        phase: For the report.
        device: Of the plan.
        journal: Open for writing.
        checkpoint: What the plan is made from, or why there is nothing.
        clock: Gives the current time, aware.
        progress: Told of each thing, and of what is copied.
        cancel: Ends it between two things or chunks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        phase: str,
        device: Device,
        journal: Journal,
        checkpoint: ReadCheckpoint | CheckpointError,
        clock: Callable[[], datetime],
        progress: Progress,
        cancel: Cancellation,
    ) -> None:
        self._layout = settings.layout
        self._phase = phase
        self._min_free_bytes = settings.limits.min_free_bytes
        self._device = device
        self._checkpoint = checkpoint
        self._clock = clock
        self._progress = progress
        self._cancel = cancel
        self._conversion = Conversion(
            Intents(device, journal, clock),
            layout=self._layout,
            min_free_bytes=self._min_free_bytes,
            telling=Telling(progress, cancel),
        )
        self._holding = Holding(self._layout)
        self._earlier = [entry for entry in journal.entries() if entry.step is Step.DONE]
        self._tally = Tally()
        self._report = ReportFile(
            self._layout.upgrade_report, account_bytes=account_bytes(self._layout.upgrade_merges)
        )
        self._started = self._now()
        self._needed = 0
        self._free = 0
        self._store_stays = False
        self._is_complete = False

    def convert(self, planned: Iterable[Planned]) -> Iterator[Outcome]:
        """Do what is planned; the report is written however it ends.

        Raises:
            InterruptedOperationError: It was stopped.
            NoSpaceError: What happens cannot even be noted.
            StorageError: A system call failed.
        """
        try:
            moves = yield from self._leave(planned)
            if moves:
                self._holding.begin()
            for move in counted(
                self._arranged(moves), self._progress, "convert", "old places", len(moves)
            ):
                yield self._heeded(self._conversion.convert(self._without_store(move)))
            self._holding.release_others()
            remove_emptied(OldLayout(self._layout.persist))
            self._is_complete = True
        finally:
            self._write_report()

    def _leave(self, planned: Iterable[Planned]) -> Generator[Outcome, None, list[Planned]]:
        moves = []
        for each in planned:
            self._cancel.check()
            if each.action is Action.LEAVE:
                yield self._heeded(Outcome(each, Result.LEFT))
            else:
                moves.append(each)
        return moves

    def _heeded(self, outcome: Outcome) -> Outcome:
        self._tally.add(outcome)
        self._report.add(outcome)
        self._holding.heed(outcome)
        if outcome.result is Result.FAILED and outcome.planned.found.kind is Kind.STORE:
            self._store_stays = True
        return outcome

    def _without_store(self, planned: Planned) -> Planned:
        """Leave a container where it is if the store with its snapshot could not be converted."""
        waits = self._store_stays and planned.found.is_container
        if not waits or planned.action is Action.FINISH:
            return planned
        text = "its snapshot is in an old store, which could not be converted"
        return replace(
            planned, action=Action.LEAVE, reason=Reason.STORE_NOT_CONVERTED, explanation=text
        )

    def _arranged(self, moves: Sequence[Planned]) -> list[Planned]:
        self._free = max(0, free_bytes(self._layout.vault) - self._min_free_bytes)
        self._needed = peak_bytes(moves, self._device.returns_room)
        return arrange(moves, self._device.returns_room, self._free)

    def _write_report(self) -> None:
        failed = isinstance(self._checkpoint, CheckpointError)
        summary = Summary(
            phase=self._phase,
            started=self._started,
            finished=self._now(),
            interrupted=not self._is_complete,
            checkpoint="" if failed else str(getattr(self._checkpoint, "path", "")),
            problem=str(self._checkpoint) if failed else "",
            needed=self._needed,
            free=self._free,
        )
        merged = MergeAccount(self._layout.upgrade_merges).entries()
        self._report.finish(summary, self._tally, self._earlier, merged)

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")
