"""From a vault that may be locked to a store that is open, with its containerd."""

__all__ = ["OpenedStore", "opened_store"]

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cas.app import Case
from cas.daemon.supervision import Supervision, tell_log_line, wait_for_vault
from cas.errors import CasError
from cas.model.settings import Settings
from cas.store.guard import VaultGuard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store, and what runs its containerd.

    Args:
        case: The store.
        containerd: None where somebody else runs it.
    """

    case: Case
    containerd: Supervision | None


@contextmanager
def opened_store(
    settings: Settings,
    *,
    stop: threading.Event,
    on_wait: Callable[[], object],
    on_ingested: Callable[[int], None],
    before_start: Callable[[], object] = lambda: None,
) -> Iterator[OpenedStore | None]:
    """Wait for the vault, and have the store open as long as the context lasts.

    A vault that is locked again meanwhile is waited for again, whatever failed because of that.

    Args:
        settings: Without ``address`` the store's own containerd is supervised.
        stop: Ends the wait; None is given then.
        on_wait: Called when there is something to wait for.
        on_ingested: Told the size of each blob that is put into the store.
        before_start: Called when the vault is open, and containerd does not run yet.

    Raises:
        CasError: As :meth:`cas.app.Case.open`; or containerd cannot be started.
    """
    guard = VaultGuard.of(settings)
    with ExitStack() as stack:
        opened: OpenedStore | None = None
        while opened is None and wait_for_vault(settings, stop, on_wait=on_wait):
            with ExitStack() as attempt:
                try:
                    before_start()
                    opened = _open(settings, stop, on_ingested, attempt)
                except CasError as error:
                    if not guard.is_closed():
                        raise
                    _log.warning("vault was locked while the store was opened error=%s", error)
                else:
                    stack.push(attempt.pop_all())
        yield None if stop.is_set() else opened


def _open(
    settings: Settings,
    stop: threading.Event,
    on_ingested: Callable[[int], None],
    stack: ExitStack,
) -> OpenedStore | None:
    containerd = None if settings.address else Supervision(settings, log=tell_log_line, stop=stop)
    if containerd is not None:
        stack.enter_context(containerd)
    if stop.is_set():
        return None
    case = stack.enter_context(Case.open(settings, on_ingested=on_ingested))
    return OpenedStore(case, containerd)
