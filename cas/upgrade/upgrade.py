"""The upgradeconverter's two use cases: make the plan, and run it.

Every run makes its own plan, so that it goes on where an earlier one was killed. One at a time;
each thing is converted by itself, and what fails is reported and holds its volume.
"""

__all__ = ["Phase", "Released", "Upgrade"]

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cas.errors import CheckpointError, LayoutError, NotFoundError, VaultLockedError
from cas.fsops.durable import make_directory
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress, counted
from cas.model.settings import Settings
from cas.store.guard import VaultGuard
from cas.upgrade.checkpoint_files import ReadCheckpoint, read_checkpoint
from cas.upgrade.completion import snapshot_key
from cas.upgrade.conversion import Conversion
from cas.upgrade.device import Device
from cas.upgrade.intents import Intents
from cas.upgrade.items import Action, Outcome, Planned, Reason
from cas.upgrade.journal import Entry, Journal, Step
from cas.upgrade.latch import read_latch
from cas.upgrade.matching import VolumeMatching, latch_keys
from cas.upgrade.old_directories import give_layout_access
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.plan import Planner, PlanOptions
from cas.upgrade.run import Run
from cas.upgrade.scan import scan
from cas.upgrade.settling import remove_temporary_copies, settle
from cas.upgrade.telling import Telling
from cas.volumes.holds import iter_held, release

_log = logging.getLogger(__name__)
_NOTHING_ASKED = PlanOptions()
_LOCK_SECONDS = 5.0
_PLANNING = ("plan", "old places")
_NEED_SNAPSHOT = frozenset({Reason.STORE_NOT_CONVERTED, Reason.MATCHED})


class Phase(StrEnum):
    """When a run takes place."""

    PRE_VAULT = "pre-vault"
    """Before the vault is open: nothing is converted, since the vault holds what was before."""
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
        self._guard = VaultGuard.of(settings)

    def plan(self, options: PlanOptions = _NOTHING_ASKED) -> Iterator[Planned]:
        """Tell what a run would do; changes nothing.

        Args:
            options: What is asked for.

        Raises:
            LayoutError: There is no persist directory.
            VaultLockedError: What is in the vault cannot be seen.
            StorageError: A system call failed.
        """
        self._require_persist()
        if self._guard.is_closed():
            raise VaultLockedError(
                f"the vault {str(self._layout.vault)!r} is locked, so that nobody can tell what "
                "was converted already; unlock it first, by `cas vault unlock`",
                path=self._layout.vault,
            )
        with Journal(self._layout.upgrade_journal, writing=False) as journal:
            device = Device(self._settings.persist, journal)
            yield from self._plan(device, options, self._checkpoint())

    def waiting(self) -> Iterator[Planned]:
        """Tell what waits for the vault; changes nothing, and looks into no vault that is locked.

        Raises:
            LayoutError: There is no persist directory.
            StorageError: A system call failed.
        """
        self._require_persist()
        text = (
            "what becomes of it is decided when the vault is open, which holds what was converted "
            "before"
        )
        for found in scan(self._layout):
            yield Planned(found, Action.LEAVE, Reason.BEFORE_VAULT, text)

    def prepare(self) -> None:
        """See that the vault may be written to, and make the directories of the layout. Idempotent.

        Those of older software get its owner and mode while there is something to upgrade.

        Raises:
            VaultLockedError: The vault is locked; nothing was touched.
            VaultNotEncryptedError: It is plain, and encryption is required.
            LayoutError: A directory of the layout is not what it must be.
            StorageError: A system call failed.
        """
        self._guard.check_writable()
        give_layout_access(self._settings)

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
            progress: Told of each thing, and within one at least once per MiB and per entry.

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
        self.prepare()
        make_directory(self._layout.upgrade, mode=0o700)
        with (
            lock(self._layout.upgrade_lock, timeout_seconds=_LOCK_SECONDS),
            Journal(self._layout.upgrade_journal, writing=True) as journal,
        ):
            yield from self._run(journal, options, cancel or Cancellation(), progress)

    def lacking_snapshots(self) -> Iterator[str]:
        """Give the snapshots that containers wait for, which a merge of stores brings.

        One of which the store may have the half that a killed merge leaves is among them: whoever
        can ask containerd tells that from a whole one.

        Raises:
            VaultLockedError: The vault is locked.
            StorageError: A system call failed.
        """
        for planned in self.plan(PlanOptions(adopt_suffixed=True)):
            if planned.found.is_container and planned.reason in _NEED_SNAPSHOT:
                yield snapshot_key(planned.found.path)

    def remove_merged(self, root: Path, *, cancel: Cancellation, progress: Progress) -> None:
        """Remove an old store of which everything is in the newer one, and note it. Idempotent.

        Args:
            root: One of the old stores.
            cancel: Ends it between two entries; the next run removes the rest.
            progress: Told of each entry.

        Raises:
            InterruptedOperationError: ``cancel`` was set.
            LockTimeoutError: A run is under way.
            NoSpaceError: It cannot be noted; nothing is removed then.
            InUseError: Something is mounted in it.
            StorageError: A system call failed.
        """
        self._guard.check_writable()
        with (
            lock(self._layout.upgrade_lock, timeout_seconds=_LOCK_SECONDS),
            Journal(self._layout.upgrade_journal, writing=True) as journal,
        ):
            conversion = Conversion(
                Intents(Device(self._settings.persist, journal), journal, self._clock),
                layout=self._layout,
                min_free_bytes=self._settings.limits.min_free_bytes,
                telling=Telling(progress, cancel),
            )
            for found in scan(self._layout):
                if found.path == root:
                    text = "everything in it is in the newer store"
                    conversion.discard(Planned(found, Action.DISCARD, Reason.MERGED, text))

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

    def _require_persist(self) -> None:
        persist = self._settings.persist
        if not persist.is_dir():
            raise LayoutError(
                f"there is no persist directory {str(persist)!r}; name another by --persist",
                path=persist,
            )

    def _run(
        self, journal: Journal, options: PlanOptions, cancel: Cancellation, progress: Progress
    ) -> Iterator[Outcome]:
        def advance(entries: int) -> None:  # noqa: ARG001 - what counts is the sign of life
            cancel.check()
            progress.advance(*_PLANNING, 0)

        device = Device(self._settings.persist, journal, advance)
        if journal.is_new:
            time = self._clock().isoformat(timespec="seconds")
            journal.add(Entry(step=Step.BEGUN, time=time))
        settle(self._settings.persist, journal, device, self._clock, advance=advance)
        remove_temporary_copies(self._layout, advance=advance)
        checkpoint = self._checkpoint()
        run = Run(
            self._settings,
            phase=Phase.POST_VAULT,
            device=device,
            journal=journal,
            checkpoint=checkpoint,
            clock=self._clock,
            progress=progress,
            cancel=cancel,
        )
        planned = self._plan(device, options, checkpoint)
        return run.convert(counted(planned, progress, *_PLANNING))

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
