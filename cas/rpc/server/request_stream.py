"""The messages of a call, as its thread takes them.

A thread that waits within gRPC's library for a message can be woken by ending the call, and that
alone: its caller then hears a status without details. So the messages of an upload are waited for
by a thread of their own, and the one of the call can end it with all of them. A single request
needs no such effort: it comes with the call itself, whatever library makes that.
"""

__all__ = ["received", "received_apart"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue

import grpc

from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation
from cas.rpc.server.call import Call, Turn
from cas.store.workers import WorkerPool

_LOOK_SECONDS = 0.1
"""How often the call's thread looks whether it shall end."""


def received(raw: Iterator[bytes], call: Call) -> Iterator[bytes]:
    """Yield the messages of a call, waited for within gRPC's library.

    Raises:
        InterruptedOperationError: The caller went away, or was too slow.
    """
    while True:
        with call.at_peer(Turn.SEND, in_grpc=True):
            call.cancellation.check()  # within: whoever sets it looks whose turn it is
            message = _next_of(raw)
        if message is None:
            return
        call.took(len(message))
        yield message


@contextmanager
def received_apart(
    raw: Iterator[bytes], call: Call, workers: WorkerPool
) -> Iterator[Iterator[bytes]]:
    """Give the messages of a call, waited for by another thread as long as the context lasts.

    That one reads a message when it is asked for one, and so holds none that nobody wants yet.
    """
    pump = _Pump(partial(_next_of, raw), workers)
    try:
        yield _pumped(pump, call)
    finally:
        pump.end()


def _pumped(pump: "_Pump", call: Call) -> Iterator[bytes]:
    while True:
        with call.at_peer(Turn.SEND, in_grpc=False):
            message = pump.next(call.cancellation)
        if message is None:
            return
        call.took(len(message))
        yield message


def _next_of(raw: Iterator[bytes]) -> bytes | None:
    try:
        return next(raw, None)
    except grpc.RpcError:
        raise InterruptedOperationError("the caller went away in the middle of it") from None


class _Pump:
    """Reads messages for another thread.

    Args:
        read: Gives the next one; None at the end. It returns, at the latest, when the call ends.
        workers: Lend a thread, from now until the end.
    """

    def __init__(self, read: Callable[[], bytes | None], workers: WorkerPool) -> None:
        self._read = read
        self._wanted: SimpleQueue[int] = SimpleQueue()
        self._found: SimpleQueue[bytes | InterruptedOperationError | None] = SimpleQueue()
        self._work = workers.submit(self._run)

    def _run(self) -> None:
        """Read as often as somebody wants a message."""
        while self._wanted.get():
            try:
                self._found.put(self._read())
            except InterruptedOperationError as error:
                self._found.put(error)

    def next(self, cancel: Cancellation) -> bytes | None:
        """Wait for a message; None at the end.

        What else ends the other thread, a defect, is raised here: nobody would hear of it there.

        Raises:
            InterruptedOperationError: The caller went away, or ``cancel`` was set.
        """
        self._wanted.put(1)
        while True:
            cancel.check()
            try:
                found = self._found.get(timeout=_LOOK_SECONDS)
            except Empty:
                if self._work.done():
                    self._work.result()
                continue
            if isinstance(found, InterruptedOperationError):
                raise found
            return found

    def end(self) -> None:
        """Let the other thread end, which it does with the call if it waits for a message."""
        self._wanted.put(0)
