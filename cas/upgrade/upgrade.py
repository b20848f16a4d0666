"""The upgradeconverter's two use cases: make the plan, and run it.

Every run makes its own plan, so that it goes on where an earlier one was killed. One at a time;
each thing is converted by itself, and what fails is reported and holds its volume.
"""

__all__ = ["Phase", "Released", "Upgrade"]

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from cas.errors import CheckpointError, NotFoundError, VaultLockedError
from cas.fsops.durable import make_directory, write_file
from cas.fsops.locks import lock
from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.settings import Settings
from cas.store.directories import create_directories
from cas.store.guard import VaultGuard
from cas.upgrade.checkpoint_files import ReadCheckpoint, read_checkpoint
from cas.upgrade.conversion import Conversion
from cas.upgrade.device import Device
from cas.upgrade.emptied import remove_emptied
from cas.upgrade.holding import Holding
from cas.upgrade.items import Action, Kind, Outcome, Planned, Reason, Result
from cas.upgrade.journal import Entry, Journal, Step
from cas.upgrade.latch import read_latch
from cas.upgrade.matching import VolumeMatching, latch_keys
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.order import arrange
from cas.upgrade.plan import Planner, PlanOptions
from cas.upgrade.report import Summary, encode_report, status_of
from cas.upgrade.scan import scan
from cas.upgrade.settling import remove_temporary_copies, settle
from cas.volumes.holds import iter_held, release

_log = logging.getLogger(__name__)
_NOTHING_ASKED = PlanOptions()
_LOCK_SECONDS = 5.0


class Phase(StrEnum):
    """When a run takes place."""

    PRE_VAULT = "pre-vault"
    """Before the vault is open. Nothing that is converted today can be then: each step writes into
    the vault, if only its journal."""
    POST_VAULT = "post-vault"


@dataclass(frozen=True, slots=True)
class Released:
    """A volume that was held.

    Args:
        name: Of the volume.
        reason: Why it was held.
        released: Whether it is not any more.
    """

    name: str
    reason: str
    released: bool


class Upgrade:
    """The upgradeconverter of one persist directory.

    Args:
        settings: Where and how.
        clock: Gives the current time, aware.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._layout = settings.layout
        self._old = OldLayout(settings.persist)
        self._clock = clock
        self._guard = VaultGuard(self._layout, require_encryption=settings.require_encryption)

    def plan(self, options: PlanOptions = _NOTHING_ASKED) -> Iterator[Planned]:
        """Tell what a run would do; changes nothing.

        Args:
            options: What is asked for.

        Raises:
            VaultLockedError: What is in the vault cannot be seen.
            StorageError: A system call failed.
        """
        if self._guard.is_closed():
            raise VaultLockedError(
                f"the vault {str(self._layout.vault)!r} is locked, so that nobody can tell what "
                "was converted already; unlock it first, by `cas vault unlock`",
                path=self._layout.vault,
            )
        with Journal(self._layout.upgrade_journal, writing=False) as journal:
            device = Device(self._settings.persist, journal)
            yield from self._plan(device, options, self._checkpoint())

    def run(
        self,
        options: PlanOptions = _NOTHING_ASKED,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Iterator[Outcome]:
        """Convert what lies in the old places; idempotent, and goes on where a run was killed.

        After an interruption everything is either in its old place or in its new one, whole. The
        report is written at the end, also of a run that is interrupted.

        Args:
            options: What is asked for.
            cancel: Ends it between two chunks.
            progress: Told of what is copied, at least once per MiB.

        Yields:
            What became of each thing, as it is done.

        Raises:
            VaultLockedError: The vault is locked; nothing was touched.
            VaultNotEncryptedError: It is plain, and encryption is required.
            LockTimeoutError: Another run is under way.
            LayoutError: A directory of the layout is not what it must be.
            NoSpaceError: Not even the journal can be written.
            InterruptedOperationError: ``cancel`` was set.
            StorageError: A system call failed.
        """
        self._guard.check_writable()
        create_directories(self._settings)
        make_directory(self._layout.upgrade, mode=0o700)
        with (
            lock(self._layout.upgrade_lock, timeout_seconds=_LOCK_SECONDS),
            Journal(self._layout.upgrade_journal, writing=True) as journal,
        ):
            yield from self._run(journal, options, cancel or Cancellation(), progress)

    def is_needed(self) -> bool:
        """Whether anything lies in the old places, or is held because something did.

        Raises:
            StorageError: A system call failed.
        """
        if next(scan(self._layout), None) is not None:
            return True
        return next(iter_held(self._layout), None) is not None

    def release(self, names: Sequence[str]) -> list[Released]:
        """Let held volumes be made anew, and tell of all that were held.

        Args:
            names: Of volumes, or ``ALL_VOLUMES`` for what holds them all.

        Raises:
            NotFoundError: One of them is not held; none was released then.
            VaultLockedError: The vault is locked.
        """
        self._guard.check_writable()
        held = list(iter_held(self._layout))
        for name in names:
            if name not in dict(held):
                raise NotFoundError(f"volume {name!r} is not held", name=name)
        for name in names:
            release(self._layout, name)
        return [Released(name, reason, name in names) for name, reason in held]

    def _run(
        self, journal: Journal, options: PlanOptions, cancel: Cancellation, progress: Progress
    ) -> Iterator[Outcome]:
        started = self._now()
        device = Device(self._settings.persist, journal)
        if journal.is_new:
            journal.add(Entry(step=Step.BEGUN, time=started))
        settle(self._settings.persist, journal, device, self._clock)
        remove_temporary_copies(self._layout)
        checkpoint = self._checkpoint()
        conversion = Conversion(
            device,
            journal,
            clock=self._clock,
            min_free_bytes=self._settings.limits.min_free_bytes,
            progress=progress,
            cancel=cancel,
        )
        earlier = [entry for entry in journal.entries() if entry.step is Step.DONE]
        outcomes: list[Outcome] = []
        complete = False
        holding = Holding(self._layout)
        try:
            moves = []
            for planned in self._plan(device, options, checkpoint):
                if planned.action is not Action.LEAVE:
                    moves.append(planned)
                    continue
                outcomes.append(Outcome(planned, Result.LEFT))
                holding.heed(outcomes[-1])
                yield outcomes[-1]
            store_stays = False
            for planned in self._arranged(device, moves):
                outcomes.append(conversion.convert(_without_store(planned, stays=store_stays)))
                store_stays |= _is_failed_store(outcomes[-1])
                holding.heed(outcomes[-1])
                yield outcomes[-1]
            holding.release_others()
            remove_emptied(self._old)
            complete = True
        finally:
            summary = self._summary(started, checkpoint, complete=complete)
            self._write_report(summary, outcomes, earlier)

    def _plan(
        self, device: Device, options: PlanOptions, checkpoint: ReadCheckpoint | CheckpointError
    ) -> Iterator[Planned]:
        problem, matching = "", None
        if isinstance(checkpoint, CheckpointError):
            problem = checkpoint.message
        else:
            latched = read_latch(self._old.latch, latch_keys(checkpoint.config))
            matching = VolumeMatching(checkpoint.config, latched)
        planner = Planner(self._layout, matching, problem, device, options)
        return planner.plan(scan(self._layout))

    def _checkpoint(self) -> ReadCheckpoint | CheckpointError:
        try:
            return read_checkpoint(self._old.checkpoints)
        except CheckpointError as error:
            return error

    def _arranged(self, device: Device, moves: Sequence[Planned]) -> list[Planned]:
        free = free_bytes(self._layout.vault) - self._settings.limits.min_free_bytes
        return arrange(moves, device.returns_room, free)

    def _summary(
        self, started: str, checkpoint: ReadCheckpoint | CheckpointError, *, complete: bool
    ) -> Summary:
        return Summary(
            phase=Phase.POST_VAULT,
            started=started,
            finished=self._now(),
            interrupted=not complete,
            checkpoint="" if isinstance(checkpoint, CheckpointError) else str(checkpoint.path),
            problem=checkpoint.message if isinstance(checkpoint, CheckpointError) else "",
        )

    def _write_report(
        self, summary: Summary, outcomes: Sequence[Outcome], earlier: Sequence[Entry]
    ) -> None:
        report = encode_report(summary, outcomes, earlier, status_of(outcomes))
        write_file(self._layout.upgrade_report, report)

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")


def _is_failed_store(outcome: Outcome) -> bool:
    return outcome.result is Result.FAILED and outcome.planned.found.kind is Kind.STORE


def _without_store(planned: Planned, *, stays: bool) -> Planned:
    """Leave containers where they are if the store with their snapshots could not be converted."""
    if not stays or planned.found.kind is not Kind.CONTAINER or planned.action is Action.FINISH:
        return planned
    text = "its snapshot is in an old store, which could not be converted"
    return replace(
        planned, action=Action.LEAVE, reason=Reason.STORE_NOT_CONVERTED, explanation=text
    )
