"""The whole life of an agent's process: start, confinement, calls, end.

Invariant: before the confinement stands, nothing is read but the first line, which comes from the
process that started this one; after it nothing is imported that the agent can do without. It ends
when the pipe does, or with its parent.
"""

__all__ = ["CallContext", "Confinable", "Handler", "serve"]

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from cas.agent.messages import (
    EVENT_BYTES,
    REQUEST_BYTES,
    Call,
    Cancel,
    Event,
    Failure,
    Instruction,
    LineReader,
    Progress,
    Ready,
    Result,
    Start,
    encode_line,
)
from cas.confinement.confine import Confinement, confine
from cas.confinement.privileges import die_with_parent, forbid_core_dumps
from cas.errors import CasError, InternalError, LimitExceededError
from cas.model.cancellation import Cancellation

_log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.1
_MESSAGE_CHARACTERS = 4096
_START_ID = 0


class CallContext:
    """One call, as its handler sees it.

    Attributes:
        cancel: Set when the caller wants no answer any more.
    """

    def __init__(self, tell: Callable[[int, int | None], None]) -> None:
        self.cancel = Cancellation()
        self._tell = tell
        self._told_at = 0.0

    def progress(self, done: int, total: int | None) -> None:
        """Tell how far it is, in bytes; may be called as often as one likes."""
        now = time.monotonic()
        if done == total or now - self._told_at >= _PROGRESS_SECONDS:
            self._told_at = now
            self._tell(done, total)


Handler = Callable[[bytes, CallContext], msgspec.Struct]
"""Does one call, given as JSON; runs in a thread of its own. Raises ``CasError`` only."""


@dataclass(frozen=True, slots=True)
class Confinable:
    """An agent that has everything in memory that it needs.

    Args:
        handler: Does the calls.
        readable: What it has to read outside its directory.
        network: Whether it needs the network.
        file_bytes: What the largest file may have that it has to write; 0 if it writes none.
    """

    handler: Handler
    readable: tuple[Path, ...] = ()
    network: bool = False
    file_bytes: int = 0


def serve(prepare: Callable[[bytes], Confinable]) -> NoReturn:
    """Be an agent until the pipe on standard input ends; the working directory is the agent's.

    Args:
        prepare: Takes the agent's options, as JSON, and imports what calls will need.
    """
    # The first line holds credentials already, and loading what it asks for takes its time. Both
    # are done again when the user has changed.
    forbid_core_dumps()
    die_with_parent(os.getppid())
    # Anything that prints must not get between the messages.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    status = _Service(sys.stdin.buffer, events).run(prepare)
    # Not by way of the interpreter's end, which waits for threads, and loads a library for it.
    os._exit(status)


class _Service:
    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests = requests
        self._events = events
        self._sending = threading.Lock()
        self._running: dict[int, CallContext] = {}

    def run(self, prepare: Callable[[bytes], Confinable]) -> int:
        try:
            handler = self._start(prepare)
            if handler is not None:
                self._obey(handler)
        except CasError as error:
            self._send(_failure(_START_ID, error))
            return error.exit_code
        return 0

    def _start(self, prepare: Callable[[bytes], Confinable]) -> Handler | None:
        decoder = msgspec.json.Decoder(Start)
        start = LineReader(self._requests, decoder, REQUEST_BYTES).read()
        if start is None:
            return None
        _configure_log(start.log_level)
        agent = prepare(bytes(start.options))
        wanted = Confinement(
            user=start.user,
            group=start.group,
            parent=start.parent,
            directory=Path(),
            readable=agent.readable,
            network=agent.network,
            file_bytes=agent.file_bytes,
        )
        report = confine(wanted)
        missing = {str(wall): reason for wall, reason in report.missing.items()}
        self._send(Ready([*map(str, report.standing)], missing))
        return agent.handler

    def _obey(self, handler: Handler) -> None:
        decoder: msgspec.json.Decoder[Instruction] = msgspec.json.Decoder(Instruction)
        reader = LineReader(self._requests, decoder, REQUEST_BYTES)
        while (instruction := reader.read()) is not None:
            match instruction:
                case Cancel(id=number):
                    context = self._running.get(number)
                    if context is not None:
                        context.cancel.set()
                case Call(id=number):
                    self._begin(handler, instruction)

    def _begin(self, handler: Handler, call: Call) -> None:
        context = CallContext(lambda done, total: self._send(Progress(call.id, done, total)))
        self._running[call.id] = context
        threading.Thread(target=self._do, args=(handler, call, context), daemon=True).start()

    def _do(self, handler: Handler, call: Call, context: CallContext) -> None:
        answer: Event
        try:
            answer = _result(call.id, handler(bytes(call.request), context))
        except CasError as error:
            answer = _failure(call.id, error)
        except Exception as error:  # noqa: BLE001 - the border of the process
            _log.exception("call failed id=%d", call.id)
            answer = _failure(call.id, InternalError(f"an agent has a defect: {error!r}"))
        finally:
            self._running.pop(call.id, None)
        self._send(answer)

    def _send(self, event: Event) -> None:
        line = encode_line(event)
        try:
            with self._sending:
                self._events.write(line)
                self._events.flush()
        except OSError:
            os._exit(1)  # nobody listens any more


def _configure_log(level: int) -> None:
    """Send our own words to standard error; those of libraries may tell too much."""
    logger = logging.getLogger("cas")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
    logger.setLevel(level)


def _result(number: int, value: msgspec.Struct) -> Result:
    encoded = msgspec.json.encode(value)
    if len(encoded) > EVENT_BYTES // 2:
        raise LimitExceededError(f"an answer of {len(encoded)} bytes is longer than is passed on")
    return Result(number, msgspec.Raw(encoded))


def _failure(number: int, error: CasError) -> Failure:
    return Failure(
        number,
        error.reference,
        error.kind,
        _passable(error.message),
        {key: _passable(str(value)) for key, value in error.details.items()},
    )


def _passable(text: str) -> str:
    """Cut a text to what fits a line, without characters that no encoding has."""
    return text[:_MESSAGE_CHARACTERS].encode(errors="replace").decode()
