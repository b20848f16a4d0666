"""Runs the upgradeconverter as part of the service's start."""

__all__ = ["convert_old_layout", "ingest_old_content", "old_content", "tell_what_waits"]

import logging
import threading
import time
from functools import partial

from cas.app import Case, open_upgrade
from cas.daemon.notification import ServiceManager
from cas.daemon.old_store import opened_old_store
from cas.errors import CasError, InterruptedOperationError
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.settings import Settings
from cas.upgrade.ingestion import OldContent
from cas.upgrade.items import Result
from cas.upgrade.merged import MergedKind
from cas.upgrade.pending import has_untold_merges, is_under_way
from cas.upgrade.store_merge import StoreMerge
from cas.volumes.holds import ALL_VOLUMES, hold

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_SIGNS = 1.0
_LOCK_SECONDS = 5.0


class _Signs:
    """Tells the manager that it goes on, and the run that it is to stop."""

    def __init__(
        self, manager: ServiceManager, stop: threading.Event, cancel: Cancellation
    ) -> None:
        self._manager = manager
        self._stop = stop
        self._cancel = cancel
        self._last = 0.0

    def start(
        self,
        action: str,
        item: str,
        total: int | None,  # noqa: ARG002 - the protocol's, as below
        unit: str = "B",  # noqa: ARG002
    ) -> None:
        self._manager.status(f"converting old volumes: {action} {item}")
        self._give_sign()

    def advance(self, action: str, item: str, amount: int) -> None:  # noqa: ARG002
        self._give_sign()

    def finish(self, action: str, item: str) -> None:  # noqa: ARG002
        self._give_sign()

    def _give_sign(self) -> None:
        if self._stop.is_set():
            self._cancel.set()
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_SIGNS:
            self._last = now
            self._manager.alive()


def tell_what_waits(settings: Settings) -> None:
    """Say in the log how much waits for the vault; nothing of it is touched before.

    Args:
        settings: Of the service.
    """
    try:
        count = sum(1 for _ in open_upgrade(settings).waiting())
    except CasError as error:
        _log.warning("old places cannot be listed error=%s", error)
        return
    if count:
        _log.warning(
            "old data waits for the vault, when it is decided what becomes of it count=%d", count
        )


def convert_old_layout(settings: Settings, manager: ServiceManager, stop: threading.Event) -> None:
    """Convert what older software left, if there is anything.

    What cannot be converted holds its volumes; where not even that can be told, all are held, and
    the service goes on. A store that stays keeps containerd from starting, which is told there.

    Args:
        settings: Of the service.
        manager: Told about progress, and that this process lives.
        stop: Ends it; the next start goes on.

    Raises:
        CasError: It failed, and not even that can be noted.
    """
    upgrade = open_upgrade(settings)
    try:
        if not is_under_way(settings.layout):
            return
        cancel = Cancellation()
        signs = _Signs(manager, stop, cancel)
        for outcome in upgrade.run(cancel=cancel, progress=signs):
            if outcome.result is Result.LEFT:
                planned = outcome.planned
                _log.info(
                    "left where it is path=%s reason=%s", planned.found.path, planned.reason.value
                )
    except InterruptedOperationError:
        return
    except CasError as error:
        _log.error("conversion of the old layout failed error=%s", error)
        try:
            hold(settings.layout, ALL_VOLUMES, error.message)
        except CasError as second:
            error.add_note(f"nor can volumes be held: {second}")
            raise error from second


def old_content(
    case: Case, *, cancel: Cancellation | None = None, progress: Progress = NO_PROGRESS
) -> OldContent:
    """Give what takes old content into an open store.

    Args:
        case: The store.
        cancel: Stops it between two chunks.
        progress: Told of every chunk.
    """
    cancel = cancel or Cancellation()
    merge = StoreMerge(
        case.backing,
        blobs=case.blobs,
        images=case.images,
        unpack=case.unpack,
        open_old=partial(opened_old_store, case.settings),
        cancel=cancel,
        progress=progress,
    )
    upgrade = open_upgrade(case.settings)
    return OldContent(
        case.settings.layout,
        case.blobs,
        merge,
        upgrade,
        case.backing.clock,
        cancel=cancel,
        progress=progress,
    )


def ingest_old_content(case: Case, manager: ServiceManager, stop: threading.Event) -> bool:
    """Take old content into the store, as far as that goes; the next start tries the rest.

    Containers whose snapshots came in are converted then, and the report tells of all.

    Args:
        case: The open store.
        manager: Told about progress, and that this process lives.
        stop: Ends it.

    Returns:
        Whether volumes may have been converted, which a recovery adopts.

    Raises:
        CasError: A conversion failed, and not even that can be noted.
    """
    cancel = Cancellation()
    signs = _Signs(manager, stop, cancel)

    brought = False
    try:
        # A command beside it would write to the same account.
        with lock(case.settings.layout.upgrade_command_lock, timeout_seconds=_LOCK_SECONDS):
            for merged in old_content(case, cancel=cancel, progress=signs).take_in():
                signs.advance("merge", merged.name, 0)
                cancel.check()
                came_in = merged.result is Result.MOVED and merged.kind is not MergedKind.BLOB
                brought = brought or came_in
    except InterruptedOperationError:
        return False
    except CasError as error:
        _log.error("old content not ingested error=%s", error)
    if brought or has_untold_merges(case.settings.layout):
        convert_old_layout(case.settings, manager, stop)
    return brought
