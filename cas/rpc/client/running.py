"""One call under way: made and waited for by a thread of its own.

An exception that a signal raises in the middle of gRPC's Python code, as Ctrl-C does, can leave a
lock of gRPC's taken for ever. So whoever asks never runs that code himself: he waits at queues
that are written in C and take no harm.
"""

__all__ = ["Feed", "RunningCall", "Send", "run_apart"]

from _thread import start_new_thread
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import grpc

from cas.model.cancellation import Cancellation

_LOOK_SECONDS = 0.2
"""How often a wait looks whether its caller has asked to stop."""
_AHEAD = 2
"""Messages that wait to be sent or to be taken; of 256 KiB each at most."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Send = Callable[[_Request], None]
"""Sends a message of a stream; blocks while the service is behind."""


def run_apart(work: Callable[[], None]) -> None:
    """Do something in another thread and wait until it is done; what it raises is lost."""
    finished: SimpleQueue[None] = SimpleQueue()

    def run() -> None:
        try:
            work()
        finally:
            finished.put(None)

    # A Thread's start() waits at a lock that a signal could leave taken.
    start_new_thread(run, ())
    finished.get()


class RunningCall(Generic[_Response]):
    """The answers of one call, each read when it is asked for.

    Args:
        make: Makes the call and gives it with its answers; called once, in another thread.
        ended: Called there when the call has ended.
    """

    def __init__(
        self,
        make: Callable[[], tuple[grpc.Call, Iterator[_Response]]],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.has_ended = False
        self._call: SimpleQueue[grpc.Call | None] = SimpleQueue()
        self._wanted: SimpleQueue[int] = SimpleQueue()
        self._answers: SimpleQueue[_Response | BaseException] = SimpleQueue()
        for _ in range(_AHEAD):
            self._wanted.put(1)
        start_new_thread(self._run, (make, ended))

    def answer(self, cancel: Cancellation | None = None) -> _Response:
        """Wait for the next answer.

        Raises:
            StopIteration: There is none.
            grpc.RpcError: The call has failed.
            InterruptedOperationError: ``cancel`` was set.
        """
        found = _get(self._answers, cancel)
        self._wanted.put(1)
        if isinstance(found, BaseException):
            raise found
        return found

    def break_off(self) -> None:
        """Cancel the call; one that has ended stays as it is. Not for the thread that asks."""
        call = self._call.get()
        if call is not None:
            call.cancel()
        self._wanted.put(0)

    def _run(
        self,
        make: Callable[[], tuple[grpc.Call, Iterator[_Response]]],
        ended: Callable[[], None],
    ) -> None:
        try:
            call, answers = make()
            self._call.put(call)
            while self._wanted.get():
                self._answers.put(next(answers))
        except BaseException as error:  # noqa: BLE001 (goes to whoever asks)
            self._answers.put(error)
        finally:
            self.has_ended = True
            self._call.put(None)
            ended()


class Feed(Generic[_Request]):
    """The messages of an upload, on their way from whoever makes them to gRPC's sending thread."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(_AHEAD):
            self._room.put(None)

    def __iter__(self) -> Iterator[_Request]:
        while (request := self._requests.get()) is not None:
            self._room.put(None)
            yield request

    def wait_for_room(self, cancel: Cancellation | None) -> None:
        """Wait until another message may be put, or the feed is ended.

        Raises:
            InterruptedOperationError: ``cancel`` was set.
        """
        _get(self._room, cancel)

    def put(self, request: _Request) -> None:
        """Queue a message for which there is room."""
        self._requests.put(request)

    def end(self) -> None:
        """Let gRPC's thread end, which waits for a next message until it gets one. Idempotent."""
        self._requests.put(None)
        self._room.put(None)


def _get(queue: "SimpleQueue[_Response]", cancel: Cancellation | None) -> _Response:
    while True:
        if cancel is not None:
            cancel.check()
        try:
            return queue.get(timeout=_LOOK_SECONDS)
        except Empty:
            continue
