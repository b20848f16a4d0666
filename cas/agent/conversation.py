"""Questions to an agent and its answers, several at once over one pair of pipes.

Whatever the other end says or does not say, this end stays usable: every wait can be ended, every
message is bounded and parsed strictly, and answers that nobody waits for are dropped.
"""

__all__ = ["Conversation", "ProgressReceiver"]

import os
import queue
import select
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import IO, TypeVar

import msgspec

from cas.agent.messages import (
    EVENT_BYTES,
    NONSENSE,
    Call,
    Cancel,
    Event,
    Failure,
    LineReader,
    Progress,
    Ready,
    Result,
    Start,
    encode_line,
)
from cas.errors import AgentError, CasError, InterruptedOperationError
from cas.model.cancellation import Cancellation
from cas.model.foreign_errors import rebuild_error

_START = 0
_OBEY_SECONDS = 10.0
"""How long a cancelled call may go on before its agent counts as stuck."""
_WRITE_MILLISECONDS = 30_000
_ATOMIC_BYTES = select.PIPE_BUF
"""What a pipe that polls as writable takes without blocking."""

_STOP = InterruptedOperationError("the operation was stopped by its caller")
"""In place of an answer: the caller wants none."""

_Value = TypeVar("_Value", bound=msgspec.Struct)

ProgressReceiver = Callable[[int, int | None], None]
"""Takes bytes done and bytes in all; called from the thread that listens, must return at once."""


class _Waiting:
    """A question that has no answer yet."""

    def __init__(self, progress: ProgressReceiver | None) -> None:
        self.answers: queue.SimpleQueue[Ready | Result | CasError] = queue.SimpleQueue()
        self.progress = progress


class Conversation:
    """One conversation; :meth:`listen` runs in a thread of its own, anything else in any.

    Args:
        requests: The agent reads its other end.
        events: The agent writes its other end.
    """

    def __init__(self, requests: IO[bytes], events: IO[bytes]) -> None:
        self._requests = requests
        decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
        self._events = LineReader(events, decoder, EVENT_BYTES)
        self._waiting: dict[int, _Waiting] = {}
        self._table = threading.Lock()
        self._sending = threading.Lock()
        self._numbers = count(_START + 1)
        self._ended: CasError | None = None
        self._over = threading.Event()

    def listen(self) -> None:
        """Hand out what the agent says until it says no more.

        Raises:
            AgentError: It says what it must not.
        """
        while (event := self._events.read()) is not None:
            match event:
                case Ready():
                    self._answer(_START, event)
                case Result(id=number):
                    self._answer(number, event)
                case Failure(id=number):
                    self._answer(number, _error(event))
                case Progress(id=number, done=done, total=total):
                    self._tell(number, done, total)

    def end(self, error: CasError) -> None:
        """Let every question, open or to come, fail with ``error``; the first call counts."""
        with self._table:
            self._ended = self._ended or error
            self._over.set()
            waiting = list(self._waiting.values())
        for each in waiting:
            each.answers.put(self._ended)

    def start(self, start: Start) -> Ready:
        """Say the first line, and give the first answer.

        Raises:
            CasError: What the agent raised.
            AgentError: It ended.
        """
        waiting = self._register(_START, None)
        self._send(start)
        answer = self._awaited(_START, waiting, None)
        if not isinstance(answer, Ready):
            raise AgentError("an agent answered before it was ready")
        return answer

    def ask(
        self,
        request: msgspec.Struct,
        answer: type[_Value],
        *,
        cancel: Cancellation | None,
        progress: ProgressReceiver | None,
    ) -> _Value:
        """Ask, and wait for the answer; see :meth:`cas.agent.process.AgentProcess.call`."""
        number = next(self._numbers)
        waiting = self._register(number, progress)
        self._send(Call(number, msgspec.Raw(msgspec.json.encode(request))))
        got = self._awaited(number, waiting, cancel)
        try:
            return msgspec.json.decode(got.value if isinstance(got, Result) else b"", type=answer)
        except NONSENSE as error:
            raise AgentError(f"an agent's answer cannot be understood: {error}") from error

    @property
    def busy(self) -> bool:
        """Whether questions are open."""
        return bool(self._waiting)

    def _register(self, number: int, progress: ProgressReceiver | None) -> _Waiting:
        with self._table:
            if self._ended is not None:
                raise self._ended
            waiting = self._waiting[number] = _Waiting(progress)
        return waiting

    def _awaited(
        self, number: int, waiting: _Waiting, cancel: Cancellation | None
    ) -> Ready | Result:
        try:
            got = self._next(number, waiting, cancel)
        finally:
            with self._table:
                self._waiting.pop(number, None)
        if got is _STOP:
            raise InterruptedOperationError(_STOP.message)
        if isinstance(got, CasError):
            raise got
        return got

    def _next(
        self, number: int, waiting: _Waiting, cancel: Cancellation | None
    ) -> Ready | Result | CasError:
        with (cancel or Cancellation()).notifying(lambda: waiting.answers.put(_STOP)):
            got = waiting.answers.get()
        return self._cancelled(number, waiting) if got is _STOP else got

    def _cancelled(self, number: int, waiting: _Waiting) -> Ready | Result | CasError:
        self._send(Cancel(number))
        deadline = time.monotonic() + _OBEY_SECONDS
        try:
            while (left := deadline - time.monotonic()) > 0:
                if (got := waiting.answers.get(timeout=left)) is not _STOP:
                    return got
        except queue.Empty:
            pass
        self.end(AgentError("an agent does not stop when it is told to"))
        return _STOP

    def _answer(self, number: int, answer: Ready | Result | CasError) -> None:
        with self._table:
            waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.answers.put(answer)

    def _tell(self, number: int, done: int, total: int | None) -> None:
        with self._table:
            waiting = self._waiting.get(number)
        if waiting is not None and waiting.progress is not None:
            waiting.progress(done, total)

    def _send(self, message: msgspec.Struct) -> None:
        rest = memoryview(encode_line(message))
        try:
            with self._sending:
                descriptor, poll = self._requests.fileno(), select.poll()
                poll.register(descriptor, select.POLLOUT)
                while rest:
                    if not poll.poll(_WRITE_MILLISECONDS):
                        raise AgentError("an agent does not read what it is told")
                    rest = rest[os.write(descriptor, rest[:_ATOMIC_BYTES]) :]
        except (OSError, ValueError) as error:
            self._over.wait(_OBEY_SECONDS)  # whoever listens learns how it ended
            raise self._ended or AgentError("an agent's pipe is closed") from error


def _error(failure: Failure) -> CasError:
    return rebuild_error(failure.reference, failure.kind, failure.message, failure.details)
