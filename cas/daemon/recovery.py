"""Recovery in the background, again and again until it went well."""

__all__ = ["RecoveryRunner"]

import logging
import threading
from collections.abc import Callable

from cas.daemon.failures import Failures
from cas.errors import CasError, InterruptedOperationError
from cas.model.cancellation import Cancellation, begin_operation

_log = logging.getLogger(__name__)


class RecoveryRunner:
    """Runs recovery in a thread of its own whenever somebody asks for it.

    Work that is under way is left alone by recovery, so calls may be served meanwhile.

    Args:
        recover: One run; idempotent.
        on_end: Told how a run ended: ``done`` or ``failed``.
        failures: Takes what is no error of the library, after which there are no more runs.
    """

    def __init__(
        self, recover: Callable[[], None], on_end: Callable[[str], None], *, failures: Failures
    ) -> None:
        self._recover = recover
        self._on_end = on_end
        self._wanted = threading.Event()
        self._first = threading.Event()
        self._ending = Cancellation()
        self._pending = False
        self._thread = threading.Thread(
            target=failures.run, args=(self._run,), name="cas-recovery", daemon=True
        )
        self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether a run could not be finished because containerd went away: ask again."""
        return self._pending

    def request(self) -> None:
        """Ask for a run; returns at once. Requests during a run make one more."""
        self._pending = False
        self._wanted.set()

    def wait_for_first(self, seconds: float) -> bool:
        """Wait for a run that came to an end of its own; False if there was none yet."""
        return self._first.wait(seconds)

    def close(self, seconds: float) -> None:
        """Begin no more runs, stop one that is under way, and wait for its end.

        What it did not come to is left to the next service.
        """
        self._ending.set()
        self._wanted.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        begin_operation(self._ending)
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ending.is_set():
                return
            self._run_once()

    def _run_once(self) -> None:
        try:
            self._recover()
        except InterruptedOperationError:
            _log.info("recovery stopped")
            return
        except CasError as error:
            _log.error("recovery failed error=%s", error)
            self._on_end("failed")
            self._pending = error.temporary
            if error.temporary:
                return
        else:
            self._on_end("done")
        self._first.set()
