"""Looks after the service: does containerd answer, does the service, is there something to recover.

What is seen goes to health, to the service manager and to the metrics. The watchdog is fed only
while both answer, or the service alone while the vault is locked; that recovery or a call takes
long is no reason not to.
"""

__all__ = ["WAITING_FOR_VAULT", "Watch"]

import logging
import threading
from types import TracebackType
from typing import Self

from cas.app import Case
from cas.daemon.failures import Failures
from cas.daemon.metrics import Metrics
from cas.daemon.notification import ServiceManager
from cas.daemon.recovery import RecoveryRunner
from cas.errors import CasError
from cas.rpc.health import HealthProbe
from cas.rpc.server import Server

_log = logging.getLogger(__name__)

WAITING_FOR_VAULT = "waiting for the vault"
"""What the service manager is told while the vault is locked."""
_AWAY = "containerd does not answer"

_LONGEST_PAUSE_SECONDS = 5.0
_PAUSE_WHILE_DOWN_SECONDS = 0.2
_LOOKS_PER_WATCHDOG = 3


class Watch:
    """Looks again and again, in a thread of its own as long as the context lasts.

    Args:
        case: The store.
        server: What is served of it.
        probe: Asks whether that answers.
        manager: Told.
        metrics: Told.
        recovery: Asked for when containerd was away.
        failures: Takes what ends the thread, which ends the service.
    """

    def __init__(
        self,
        case: Case,
        server: Server,
        *,
        probe: HealthProbe,
        manager: ServiceManager,
        metrics: Metrics,
        recovery: RecoveryRunner,
        failures: Failures,
    ) -> None:
        self._case = case
        self._server = server
        self._probe = probe
        self._manager = manager
        self._metrics = metrics
        self._recovery = recovery
        self._pause = min(manager.watchdog_seconds / _LOOKS_PER_WATCHDOG, _LONGEST_PAUSE_SECONDS)
        self._up = True
        self._leaving = False
        self._was_down = False
        self._noting = threading.Lock()
        self._ends = 0
        self._owed: frozenset[str] = frozenset()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(
            target=failures.run, args=(self._run,), name="cas-watch", daemon=True
        )

    def containerd_ended(self) -> None:
        """Take note that containerd ended by itself; it is being started again."""
        self._metrics.containerd_ended()
        with self._noting:
            self._ends += 1
            self._note(_AWAY)
        self._wake.set()

    def leave(self) -> None:
        """From now on health says that the service is on its way out."""
        self._leaving = True
        self._server.set_serving(False)

    def look(self) -> None:
        """Look once, and do what follows."""
        trouble = self._look()
        if trouble == _AWAY:
            return
        if trouble == WAITING_FOR_VAULT:
            self._server.end_guarded_calls()
        if trouble is None:
            self._recover_if_needed()
        if self._probe.answers(self._pause):
            self._manager.alive()

    def _look(self) -> str | None:
        """Look, and take note of it; what containerd answered before its end counts for nothing."""
        ends = self._ends
        trouble = self._trouble()
        with self._noting:
            if ends != self._ends:
                return _AWAY
            self._note(trouble)
        return trouble

    def _recover_if_needed(self) -> None:
        if self._was_down or self._recovery.pending or self._owes():
            self._was_down = False
            self._recovery.request()

    def _trouble(self) -> str | None:
        """Why the store cannot be served; None if it can."""
        try:
            if self._case.guard.is_closed():
                return WAITING_FOR_VAULT
            self._case.containerd.health(self._pause)
        except CasError as error:
            if self._up:
                _log.warning("containerd does not answer error=%s", error)
            return _AWAY
        return None

    def _note(self, trouble: str | None) -> None:
        up = trouble is None
        if up and not self._up:
            _log.info("containerd answers again")
        if trouble == WAITING_FOR_VAULT and self._up:
            vault = self._case.settings.layout.vault
            _log.warning("waiting for the vault to be unlocked path=%s", vault)
        self._up = up
        self._was_down = self._was_down or not up
        self._server.set_serving(up and not self._leaving)
        self._metrics.containerd_is_up(up)
        self._manager.status(trouble or "serving")

    def _owes(self) -> bool:
        """Whether a lease could not be released, as when containerd went away for a moment only."""
        before, self._owed = self._owed, self._case.leasing.unreleased()
        return bool(before & self._owed)  # one that is just being released is gone by now

    def _run(self) -> None:
        while not self._ending:
            self.look()
            self._wake.wait(self._pause if self._up else _PAUSE_WHILE_DOWN_SECONDS)
            self._wake.clear()

    def __enter__(self) -> Self:
        # Whoever is told next that the service is ready may ask for its health at once.
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending = True
        self._wake.set()
        self._thread.join()
