"""A whole upgrade as one command, whether a service runs beside it or not.

Conversion needs no containerd. What the store is to take in afterwards does: the service's where
one runs, else whichever runs, else one of the command's own. Two locks keep them apart. One command
at a time holds its own, and with it that of the service where there is none: a service that starts
meanwhile waits, so that nobody else starts a containerd on the store.
"""

__all__ = ["upgrade"]

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cas.app import Case, open_upgrade
from cas.containerd.root_directory import find_root_holder
from cas.daemon.conversion import old_content
from cas.daemon.orphan import end_orphan
from cas.daemon.supervision import Supervision, tell_log_line
from cas.errors import LockTimeoutError
from cas.fsops.locks import FileLock, lock
from cas.model.progress import Progress
from cas.model.settings import Settings
from cas.upgrade.items import Outcome
from cas.upgrade.merged import Merged
from cas.upgrade.pending import awaits_store, has_untold_merges
from cas.upgrade.plan import PlanOptions

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 5.0


def upgrade(
    settings: Settings, options: PlanOptions, *, progress: Progress
) -> Iterator[Outcome | Merged]:
    """Convert, let the store take in what is for it, and convert what waited for that.

    Idempotent; goes on where one was killed.

    Args:
        settings: Where and how.
        options: What is asked for.
        progress: Told of everything.

    Yields:
        What became of each thing, as it is done. What was converted after a merge is told anew,
        and counts instead of what was told before.

    Raises:
        LockTimeoutError: Another command, or the start of a service, is at it.
        CasError: As :meth:`cas.upgrade.upgrade.Upgrade.run`; or the store cannot be opened, after
            everything that needs none was done.
    """
    converter = open_upgrade(settings)
    converter.prepare()
    with ExitStack() as stack:
        stack.enter_context(
            lock(settings.layout.upgrade_command_lock, timeout_seconds=_LOCK_SECONDS)
        )
        is_served = not _acquired(settings, stack)
        if not is_served:
            end_orphan(settings.layout.case)  # of a killed command
        yield from converter.run(options, progress=progress)
        if not awaits_store(settings.layout):
            return
        with _opened(settings, is_served=is_served) as case:
            case.recover()
            yield from old_content(case, progress=progress).take_in()
            if has_untold_merges(settings.layout):
                yield from converter.run(options, progress=progress)
                case.recover()


def _acquired(settings: Settings, stack: ExitStack) -> bool:
    """Take the lock of the service; False if one runs."""
    held = FileLock(settings.layout.service_lock)
    try:
        held.acquire(timeout_seconds=0)
    except LockTimeoutError:
        return False
    stack.enter_context(held)
    return True


@contextmanager
def _opened(settings: Settings, *, is_served: bool) -> Iterator[Case]:
    """Open the store, with a containerd of our own where nobody else's is there."""
    with ExitStack() as stack:
        if not (is_served or _has_containerd(settings)):
            stack.enter_context(Supervision(settings, log=tell_log_line, stop=threading.Event()))
        yield stack.enter_context(Case.open(settings))


def _has_containerd(settings: Settings) -> bool:
    return settings.address is not None or find_root_holder(settings.layout.case) is not None
