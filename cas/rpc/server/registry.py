"""The calls that are running: how many there may be, who waits for one, which of them hang."""

__all__ = ["NO_OBSERVER", "CallObserver", "Patience", "RunningCalls", "watched"]

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from cas.errors import ServiceUnavailableError
from cas.model.cancellation import Cancellation
from cas.rpc.server.call import Call
from cas.rpc.server.gate import Gate

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1


class CallObserver(Protocol):
    """Whoever counts calls; called from many threads, must not raise and must return at once."""

    def call_began(self, method: str) -> None:
        """A call, as in ``/cas.v1.Blobs/Get``, begins."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """It has ended with this status, as in ``NOT_FOUND``."""


class _NoObserver:
    def call_began(self, method: str) -> None:
        pass

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        pass


NO_OBSERVER: CallObserver = _NoObserver()
"""Nobody counts."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller may keep its call waiting, in seconds; see :meth:`Call.seconds_at_peer`.

    Args:
        stalled: If nobody minds.
        wanted: While others wait for a place like the one that its call holds.
    """

    stalled: float = 300.0
    wanted: float = 10.0


class RunningCalls:
    """The running calls of one server.

    Calls that only wait for something to happen (``lingering``) are counted apart: they take
    nothing but a thread, and may last for ever.

    Args:
        working: How many may work at once.
        lingering: How many may linger at once.
        patience: How long a caller may keep a call waiting for it.
        gates: Where calls wait for others.
    """

    def __init__(
        self, *, working: int, lingering: int, patience: Patience, gates: Sequence[Gate]
    ) -> None:
        self._limits = {False: working, True: lingering}
        self._patience = patience
        self._gates = gates
        self._changed = threading.Condition()
        self._calls: dict[Call, bool] = {}
        self._closed = False

    @contextmanager
    def admitted(self, call: Call, *, lingers: bool) -> Iterator[None]:
        """Count a call as running, as long as the context lasts.

        Raises:
            ServiceUnavailableError: There are as many as there may be, or the service ends.
        """
        with self._changed:
            self._require_room(lingers=lingers)
            self._calls[call] = lingers
        try:
            yield
        finally:
            with self._changed:
                del self._calls[call]
                self._changed.notify_all()

    def _require_room(self, *, lingers: bool) -> None:
        if self._closed:
            raise ServiceUnavailableError("the service is being stopped; try again when it is back")
        limit = self._limits[lingers]
        if sum(each is lingers for each in self._calls.values()) >= limit:
            raise ServiceUnavailableError(
                f"the service has {limit} calls running and takes no more; try again in a moment",
                limit=limit,
            )

    @property
    def count(self) -> int:
        """Calls that work."""
        with self._changed:
            return sum(not lingers for lingers in self._calls.values())

    def wait_for(self, key: str, cancel: Cancellation) -> None:
        """Return when no call runs that its caller gave this key.

        Raises:
            InterruptedOperationError: ``cancel`` was set.
        """
        with self._changed:
            while any(call.key == key and not lingers for call, lingers in self._calls.items()):
                cancel.check()
                self._changed.wait(_POLL_SECONDS)

    def close(self) -> None:
        """Admit no more, and end those that linger. Idempotent."""
        with self._changed:
            self._closed = True
            lingering = [call for call, lingers in self._calls.items() if lingers]
        for call in lingering:
            call.cancellation.set()

    def await_end(self, seconds: float) -> bool:
        """Wait until no call runs; False if some still do after that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._calls, seconds)

    def end_guarded(self) -> None:
        """End the calls that work on what is in the vault, which is being locked. Idempotent.

        Their work undoes itself; callers whose turn it is are not waited for.
        """
        with self._changed:
            guarded = [call for call in self._calls if call.guarded]
        for call in guarded:
            call.cancellation.set()
            if call.seconds_at_peer():
                call.break_off()

    def break_off_stalled(self) -> None:
        """Break off the calls whose callers neither read nor send although it is their turn."""
        # Any gate: who holds a place of one may have a lock that a call within another waits for.
        wanted = any(gate.is_wanted for gate in self._gates)
        with self._changed:
            calls = list(self._calls)
        for call in calls:
            hurried = wanted and call.holds_place
            if call.seconds_at_peer() > (
                self._patience.wanted if hurried else self._patience.stalled
            ):
                _log.warning("caller stalls, call broken off method=%s", call.method)
                call.break_off()


@contextmanager
def watched(calls: RunningCalls, every_seconds: float) -> Iterator[None]:
    """Look for stalled calls now and then, as long as the context lasts."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every_seconds):
            calls.break_off_stalled()

    thread = threading.Thread(target=watch, name="cas-rpc-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
