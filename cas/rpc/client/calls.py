"""How every call of the client goes out: deadline, errors of ours, and no call left half done.

gRPC answers a cancellation at once, whatever the service still has to put away. So a call carries
a name of its own, and whoever breaks one off (by Ctrl-C, by a cancellation, by closing its
iterator) asks the service to tell when the call of that name has been undone.

A call that a service refuses because it still opens its store is made again, as nothing of it has
begun.
"""

__all__ = ["Calls"]

import logging
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Literal, Protocol, TypeVar

import grpc

from cas._gen.cas.v1 import store_pb2, store_pb2_grpc, types_pb2
from cas.errors import InternalError
from cas.model.cancellation import Cancellation
from cas.model.progress import Progress
from cas.rpc.client.opening import NO_WAIT, Wait, ask_again
from cas.rpc.client.running import Feed, RunningCall, Send, run_apart
from cas.rpc.progress import ProgressReplay
from cas.rpc.status import error_from_rpc, is_told

_log = logging.getLogger(__name__)

_NAME_KEY = "cas-call"
_UNDO_SECONDS = 60.0
"""How long to wait for the service to undo what was broken off."""

_ROOM_SECONDS = 0.2
"""Until a service is asked again that had no room."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Metadata = tuple[tuple[str, str], ...]


class _Step(Protocol):
    """An answer of a long call: progress, or something of the result."""

    @property
    def progress(self) -> types_pb2.Progress: ...

    def HasField(self, field_name: Literal["progress"], /) -> bool: ...  # noqa: N802 (protobuf's)


_AnyStep = TypeVar("_AnyStep", bound=_Step)


class _AnsweredError(Exception):
    """The call has ended although not everything was sent."""


class Calls:
    """Makes calls on one channel; safe to share between threads.

    Args:
        channel: To the service.
        seconds: Deadline of every call, waiting included; None for none.
        wait: For a service that still opens its store.
    """

    def __init__(
        self, channel: grpc.Channel, seconds: float | None = None, *, wait: Wait = NO_WAIT
    ) -> None:
        self.channel = channel
        self._seconds = seconds
        self._wait = wait
        self._store = store_pb2_grpc.StoreStub(channel)

    def with_deadline(self, seconds: float | None) -> "Calls":
        """Give the same channel with another deadline."""
        return Calls(self.channel, seconds, wait=self._wait)

    def unary(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        action: str,
        cancel: Cancellation | None = None,
    ) -> _Response:
        """Call and wait for the answer.

        Args:
            method: Of a stub.
            request: Its message.
            action: What is being done, for messages, such as ``list blobs``.
            cancel: Breaks the call off, from any thread, within a moment.

        Raises:
            CasError: What the service ended the call with.
            InterruptedOperationError: ``cancel`` was set.
        """
        left = _countdown(self._seconds)

        def make(metadata: _Metadata) -> tuple[grpc.Call, Iterator[_Response]]:
            call = method.future(request, timeout=left(), metadata=metadata)
            return call, _result(call)

        def ask() -> _Response:
            with self._running(make, action) as running:
                return running.answer(cancel)

        return self._asked(ask, cancel)

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        action: str,
        cancel: Cancellation | None = None,
    ) -> Generator[_Response, None, None]:
        """Call and yield the answers; a call whose iterator is closed early is cancelled.

        Args:
            method: Of a stub.
            request: Its message.
            action: What is being done, for messages.
            cancel: Breaks the call off, from any thread, within a moment.

        Raises:
            CasError: What the service ended the call with.
            InterruptedOperationError: ``cancel`` was set.
        """
        left = _countdown(self._seconds)

        def make(metadata: _Metadata) -> tuple[grpc.Call, Iterator[_Response]]:
            call = method(request, timeout=left(), metadata=metadata)
            return call, iter(call)

        def ask() -> tuple[Generator[_Response, None, None], list[_Response]]:
            answers = self._answers(make, action, cancel)
            return answers, list(islice(answers, 1))  # a refusal comes in place of the first

        answers, first = self._asked(ask, cancel)
        with closing(answers):
            yield from first
            yield from answers

    def _answers(
        self,
        make: Callable[[_Metadata], tuple[grpc.Call, Iterator[_Response]]],
        action: str,
        cancel: Cancellation | None,
    ) -> Generator[_Response, None, None]:
        with self._running(make, action) as running, suppress(StopIteration):
            while True:
                yield running.answer(cancel)

    def steps(
        self,
        method: "grpc.UnaryStreamMultiCallable[_Request, _AnyStep]",
        request: _Request,
        *,
        action: str,
        progress: Progress,
        cancel: Cancellation | None = None,
    ) -> Generator[_AnyStep, None, None]:
        """Call, tell progress, and yield the other answers; see :meth:`stream`."""
        replay = ProgressReplay(progress)
        with closing(self.stream(method, request, action=action, cancel=cancel)) as steps:
            for step in steps:
                if step.HasField("progress"):
                    replay.hand_on(step.progress)
                else:
                    yield step

    def outcome(
        self,
        method: "grpc.UnaryStreamMultiCallable[_Request, _AnyStep]",
        request: _Request,
        *,
        action: str,
        progress: Progress,
        cancel: Cancellation | None = None,
    ) -> _AnyStep:
        """Call, tell progress, and give the one other answer; see :meth:`stream`.

        Raises:
            InternalError: There was none.
        """
        result = None
        for step in self.steps(method, request, action=action, progress=progress, cancel=cancel):
            result = step
        if result is None:
            raise InternalError(f"the service ended without an answer: {action}")
        return result

    def upload(
        self,
        method: "grpc.StreamUnaryMultiCallable[_Request, _Response]",
        produce: Callable[[Send[_Request]], None],
        *,
        action: str,
        cancel: Cancellation | None = None,
    ) -> _Response:
        """Call with what ``produce`` sends, in this thread, and wait for the answer.

        Args:
            method: Of a stub.
            produce: Makes the messages and calls what it is given with each. What it raises
                breaks the call off, which the service may first see as an end: only a last message
                that says so makes an upload complete.
            action: What is being done, for messages.
            cancel: Looked at with every message, and while the answer is waited for.

        Returns:
            The answer, which may come before everything was sent.

        Raises:
            CasError: What the service ended the call with.
        """
        feed: Feed[_Request] = Feed()
        left = _countdown(self._seconds)
        if self._wait.seconds:
            self._await_store(left, cancel)  # what is sent is there only once

        def make(metadata: _Metadata) -> tuple[grpc.Call, Iterator[_Response]]:
            call = method.future(iter(feed), timeout=left(), metadata=metadata)
            return call, _result(call)

        with self._running(make, action, ended=feed.end) as running:

            def send(request: _Request) -> None:
                feed.wait_for_room(cancel)
                if running.has_ended:
                    raise _AnsweredError
                feed.put(request)

            with suppress(_AnsweredError):
                produce(send)
            feed.end()
            return running.answer(cancel)

    def _await_store(self, left: Callable[[], float | None], cancel: Cancellation | None) -> None:
        """Return when the service has its store open, or fails for another reason."""
        version, request = self._store.Version, store_pb2.VersionRequest()

        def ask() -> store_pb2.VersionResponse:
            once = Calls(self.channel, left())
            return once.unary(version, request, action="ask for its version", cancel=cancel)

        self._asked(ask, cancel)

    def _asked(self, ask: Callable[[], _Response], cancel: Cancellation | None = None) -> _Response:
        """Ask until the store is open, within the deadline."""
        wait = self._wait
        if self._seconds is not None:
            wait = replace(wait, seconds=min(wait.seconds, self._seconds))
        return ask_again(ask, wait=wait, cancel=cancel)

    @contextmanager
    def _running(
        self,
        make: Callable[[_Metadata], tuple[grpc.Call, Iterator[_Response]]],
        action: str,
        ended: Callable[[], None] = lambda: None,
    ) -> Iterator[RunningCall[_Response]]:
        """Have a call run; leave with it ended, undone if it was broken off."""
        name = uuid.uuid4().hex
        running = RunningCall(lambda: make(((_NAME_KEY, name),)), ended)
        try:
            yield running
        except grpc.RpcError as error:
            raise error_from_rpc(error, action) from error
        except BaseException:
            # Nobody wants the answer any more.
            if not running.has_ended:
                run_apart(lambda: self._undo(running, name, action))
            raise

    def _undo(self, running: RunningCall[_Response], name: str, action: str) -> None:
        running.break_off()
        deadline = time.monotonic() + _UNDO_SECONDS
        while (error := self._await_undone(name, deadline - time.monotonic())) is not None:
            left = deadline - time.monotonic()
            # A service that has no room for the question says so; one that is gone does not.
            if error.code() is grpc.StatusCode.UNAVAILABLE and is_told(error) and left > 0:
                time.sleep(min(_ROOM_SECONDS, left))
                continue
            _log.warning(
                "service did not say that a call was undone action=%r code=%s",
                action,
                error.code().name,
            )
            return

    def _await_undone(self, name: str, seconds: float) -> grpc.RpcError | None:
        try:
            self._store.Wait(store_pb2.WaitRequest(call=name), timeout=max(seconds, 0.0))
        except grpc.RpcError as error:
            return error
        return None


def _countdown(seconds: float | None) -> Callable[[], float | None]:
    """Begin a deadline; gives what tells how much of it is left."""
    if seconds is None:
        return lambda: None
    end = time.monotonic() + seconds
    return lambda: max(end - time.monotonic(), 0.0)


def _result(call: "grpc.Future[_Response]") -> Iterator[_Response]:
    yield call.result()
