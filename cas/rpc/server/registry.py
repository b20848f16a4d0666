"""The calls that are running: how many there may be, who waits for one, which of them hang."""

__all__ = [
    "NO_OBSERVER",
    "ONLY_WORK",
    "CallObserver",
    "Kind",
    "Patience",
    "RunningCalls",
    "watched",
]

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from cas.errors import CallerStalledError, InterruptedOperationError, ServiceUnavailableError
from cas.model.cancellation import Cancellation
from cas.model.printable import printable
from cas.rpc.server.call import Call
from cas.rpc.server.gate import Gate

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_NAMED = 256
"""Characters of what a call is about that messages and the log repeat."""
_LAST_WORDS_SECONDS = 1.0
"""How long a caller may take to read what it is told at the end."""


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


class Kind(Enum):
    """What a call does; each kind has places of its own, so that none shuts out another."""

    WORK = "work"
    LISTEN = "listen"
    """It tells what happens, and may last for ever."""
    AWAIT = "await"
    """It returns when another one is undone."""
    DESCRIBE = "describe"
    """It tells of the service, and may last for ever."""
    PROBE = "probe"
    """It says at once whether the service answers, also while that is being stopped."""


_LASTING = frozenset({Kind.LISTEN, Kind.AWAIT, Kind.DESCRIBE})
"""They may last for ever, or as long as others do."""

ONLY_WORK: Mapping[str, Kind] = MappingProxyType({})
"""The kinds of a service whose methods all work."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller may keep its call waiting, in seconds; see :meth:`Call.seconds_at_peer`.

    Args:
        stalled: If nobody minds.
        wanted: While others wait for a place like the one that its call holds, or were refused
            because so many calls of its kind run.
        first: Before its first message.
    """

    stalled: float = 300.0
    wanted: float = 10.0
    first: float = 10.0

    @property
    def shortest(self) -> float:
        """The shortest of them."""
        return min(self.stalled, self.wanted, self.first)


class RunningCalls:
    """The running calls of one server.

    Args:
        places: How many of each kind may run at once.
        patience: How long a caller may keep a call waiting for it.
        gates: Where calls wait for others.
    """

    def __init__(
        self, places: Mapping[Kind, int], *, patience: Patience, gates: Sequence[Gate]
    ) -> None:
        self._places = places
        self._patience = patience
        self._gates = gates
        self._changed = threading.Condition()
        self._calls: dict[Call, Kind] = {}
        self._refused: set[Kind] = set()
        self._closed = False

    @contextmanager
    def admitted(self, call: Call, kind: Kind) -> Iterator[None]:
        """Count a call as running, as long as the context lasts.

        Raises:
            ServiceUnavailableError: There are as many as there may be, or the service ends.
        """
        with self._changed:
            self._require_room(kind)
            self._calls[call] = kind
        try:
            yield
        finally:
            with self._changed:
                del self._calls[call]
                self._changed.notify_all()

    def _require_room(self, kind: Kind) -> None:
        if self._closed and kind is not Kind.PROBE:
            raise ServiceUnavailableError("the service is being stopped; try again when it is back")
        limit = self._places[kind]
        if self._count(kind) >= limit:
            self._refused.add(kind)
            raise ServiceUnavailableError(
                f"the service has {limit} calls running and takes no more; try again in a moment",
                limit=limit,
            )

    def _count(self, kind: Kind) -> int:
        return sum(each is kind for each in self._calls.values())

    @property
    def count(self) -> int:
        """Calls that work."""
        with self._changed:
            return self._count(Kind.WORK)

    def of_key(self, key: str) -> list[Call]:
        """Give the calls that work and that their caller gave this key."""
        with self._changed:
            return [
                call for call, kind in self._calls.items() if call.key == key and kind is Kind.WORK
            ]

    def wait_for(self, key: str, cancel: Cancellation) -> None:
        """Return when no call works that its caller gave this key.

        Raises:
            InterruptedOperationError: ``cancel`` was set.
        """
        with self._changed:
            while self.of_key(key):
                cancel.check()
                self._changed.wait(_POLL_SECONDS)

    def close(self) -> None:
        """Admit no more, and end those that may last for ever. Idempotent.

        What such a call is being told arrives; a caller who does not read it is broken off soon.
        """
        with self._changed:
            self._closed = True
            ending = [call for call, kind in self._calls.items() if kind in _LASTING]
        for call in ending:
            call.cancellation.set()

    def await_end(self, seconds: float) -> bool:
        """Wait until no call runs but probes; False if some still do after that time."""

        def ended() -> bool:
            return len(self._calls) == self._count(Kind.PROBE)

        with self._changed:
            return self._changed.wait_for(ended, seconds)

    def end_guarded(self) -> None:
        """End the calls that work on what is in the vault, which is being locked. Idempotent.

        Their work undoes itself; callers whose turn it is are not waited for.
        """
        with self._changed:
            guarded = [call for call in self._calls if call.guarded]
        for call in guarded:
            call.break_off(
                InterruptedOperationError(
                    "the vault is being locked, so the call was broken off; make it again when the "
                    "vault is open"
                )
            )

    def break_off_stalled(self) -> None:
        """Break off the calls whose callers neither read nor send although it is their turn."""
        # Any gate: who holds a place of one may have a lock that a call within another waits for.
        wanted = any(gate.is_wanted for gate in self._gates)
        with self._changed:
            calls, refused = dict(self._calls), self._refused
            self._refused = set()
        for call, kind in calls.items():
            hurried = kind in refused or (wanted and call.holds_place)
            ending = self._closed and kind in _LASTING
            limit = _LAST_WORDS_SECONDS if ending else self._seconds_for(call, hurried=hurried)
            seconds = call.seconds_at_peer()
            if seconds > limit:
                _log.warning(
                    "caller stalls, call broken off method=%s object=%s seconds=%.1f limit=%g",
                    call.method,
                    printable(call.object[:_NAMED]),
                    seconds,
                    limit,
                )
                call.break_off(_stalled(call, seconds, limit))

    def _seconds_for(self, call: Call, *, hurried: bool) -> float:
        if not call.has_begun:
            return self._patience.first
        return self._patience.wanted if hurried else self._patience.stalled


def _stalled(call: Call, seconds: float, limit: float) -> CallerStalledError:
    named, turn = call.object[:_NAMED], call.turn.value
    what = f"{call.method} of {named!r}" if named else call.method
    return CallerStalledError(
        f"the caller of {what} did not {turn} although it was its turn, and kept the service "
        f"waiting for {seconds:.1f} seconds, where {limit:g} is the limit, so the call was broken "
        f"off; make it again, and {turn} without such pauses",
        method=call.method,
        object=named,
        limit_seconds=f"{limit:g}",
        actual_seconds=f"{seconds:.1f}",
    )


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
