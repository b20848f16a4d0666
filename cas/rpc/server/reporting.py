"""Work that reports its progress to the caller, at least once a second.

The work is done by another thread; the one that serves the call sends what changed, and a sign of
life when nothing does. A caller that goes away stops the work, and the call lasts until the work
has undone what it began.
"""

__all__ = ["reported"]

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from cas._gen.cas.v1 import types_pb2
from cas.model.progress import Progress
from cas.rpc import messages
from cas.rpc.server.call import Call
from cas.rpc.server.gate import Gate
from cas.store.workers import WorkerPool

_Result = TypeVar("_Result")
_Response = TypeVar("_Response")

_SHORTEST_SECONDS = 0.1
_LONGEST_SECONDS = 0.8
"""Between two reports; a sign of life has to arrive within a second."""
_UNTOLD = 256
"""Items that came and went while the caller did not read; more are not told of at all."""


def reported(
    call: Call,
    workers: WorkerPool,
    gate: Gate | None,
    work: Callable[[Progress], _Result],
    respond: Callable[[types_pb2.Progress], _Response],
) -> Generator[_Response, None, _Result]:
    """Work, yield what is to be told meanwhile, and return the result.

    Args:
        call: The call that it is done for.
        workers: Where it is done.
        gate: What it has to pass first, if anything.
        work: Is given somebody to tell of its progress.
        respond: Makes a message of the call from a report.

    Raises:
        Whatever the work raises.
    """
    reporter = _Reporter()

    def act() -> _Result:
        if gate is None:
            return work(reporter)
        with gate.entered(call.cancellation):
            return work(reporter)

    future = workers.submit(act)
    future.add_done_callback(lambda _: reporter.wake())
    try:
        yield from _reports(reporter, future, respond)
        return future.result()
    finally:
        if not future.done():
            call.cancellation.set()
            wait([future])


def _reports(
    reporter: "_Reporter",
    future: "Future[_Result]",
    respond: Callable[[types_pb2.Progress], _Response],
) -> Generator[_Response, None, None]:
    last = time.monotonic()
    while not future.done():
        told = False
        for report in reporter.await_reports(_LONGEST_SECONDS, future.done):
            told = True
            yield respond(report)
        if not told and not future.done() and time.monotonic() - last >= _LONGEST_SECONDS:
            told = True
            yield respond(types_pb2.Progress())
        if told:
            last = time.monotonic()
            reporter.rest(_SHORTEST_SECONDS, future.done)
    if future.exception() is None:
        yield from map(respond, reporter.take())


@dataclass
class _Item:
    """How far one item is, and whether the caller knows of it."""

    action: str
    name: str
    total: int | None
    unit: str
    done: int = 0
    finished: bool = False
    changed: bool = True
    told: bool = False

    def report(self) -> types_pb2.Progress:
        self.changed, self.told = False, True
        return messages.progress(
            self.action,
            self.name,
            done=self.done,
            total=self.total,
            unit=self.unit,
            finished=self.finished,
        )


class _Reporter:
    """Remembers what changed between two reports."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._live: dict[tuple[str, str], _Item] = {}
        self._ended: deque[_Item] = deque()
        self._news = False

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        """An item begins."""
        with self._condition:
            self._live[action, item] = _Item(action, item, total, unit)
            self._note()

    def advance(self, action: str, item: str, amount: int) -> None:
        """It goes on."""
        with self._condition:
            found = self._live.get((action, item))
            if found is None:
                found = self._live[action, item] = _Item(action, item, None, "")
            found.done += amount
            found.changed = True
            self._note()

    def finish(self, action: str, item: str) -> None:
        """It ends."""
        with self._condition:
            found = self._live.pop((action, item), None)
            if found is None or (not found.told and len(self._ended) >= _UNTOLD):
                return
            found.finished = True
            self._ended.append(found)
            self._note()

    def wake(self) -> None:
        """The work is done."""
        with self._condition:
            self._condition.notify_all()

    def await_reports(self, seconds: float, done: Callable[[], bool]) -> list[types_pb2.Progress]:
        """Give what changed as soon as something did; nothing when the time or the work ends."""
        with self._condition:
            self._condition.wait_for(lambda: self._news or done(), seconds)
            return [] if done() else self._take()

    def rest(self, seconds: float, done: Callable[[], bool]) -> None:
        """Let changes come together for a while; no longer than the work lasts."""
        with self._condition:
            self._condition.wait_for(done, seconds)

    def take(self) -> list[types_pb2.Progress]:
        """Give what changed."""
        with self._condition:
            return self._take()

    def _note(self) -> None:
        if not self._news:
            self._news = True
            self._condition.notify_all()

    def _take(self) -> list[types_pb2.Progress]:
        self._news = False
        items = [*self._ended, *(item for item in self._live.values() if item.changed)]
        self._ended.clear()
        return [item.report() for item in items]
