"""What is said over the pipes between an agent and whoever started it; no behaviour.

One JSON object per line. Both sides parse strictly and stop at a line that is too long: an agent
that was taken over by what it downloaded must not be able to hurt the side with the rights.
Credentials travel here and nowhere else, since arguments and environment of a process are public.
"""

__all__ = [
    "EVENT_BYTES",
    "NONSENSE",
    "REQUEST_BYTES",
    "Call",
    "Cancel",
    "Event",
    "Failure",
    "Instruction",
    "LineReader",
    "Progress",
    "Ready",
    "Result",
    "Start",
    "encode_line",
]

from typing import Generic, Protocol, TypeVar

import msgspec

from cas.errors import AgentError

EVENT_BYTES = 1024 * 1024
"""One line from an agent."""
REQUEST_BYTES = 4 * 1024 * 1024
"""One line to an agent; certificates make the first one long."""

NONSENSE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line of an agent may raise: it may be nested without end, or no text."""

_Message = TypeVar("_Message")


class Start(msgspec.Struct, frozen=True, tag="start", forbid_unknown_fields=True):
    """The first line: who to be.

    Args:
        user: User id to take on.
        group: Group id to take on.
        parent: Process id of the sender.
        log_level: As in :mod:`logging`.
        options: The agent's own.
    """

    user: int
    group: int
    parent: int
    log_level: int
    options: msgspec.Raw


class Call(msgspec.Struct, frozen=True, tag="call", forbid_unknown_fields=True):
    """Do something; several may run at once.

    Args:
        id: Names it; never used twice.
        request: The agent's own.
    """

    id: int
    request: msgspec.Raw


class Cancel(msgspec.Struct, frozen=True, tag="cancel", forbid_unknown_fields=True):
    """Stop that call; it ends with a failure, unless it was done already."""

    id: int


Instruction = Call | Cancel


class Ready(msgspec.Struct, frozen=True, tag="ready", forbid_unknown_fields=True):
    """The first answer: confined.

    Args:
        standing: Walls that stand.
        missing: Wall to reason.
    """

    standing: list[str]
    missing: dict[str, str]


class Progress(msgspec.Struct, frozen=True, tag="progress", forbid_unknown_fields=True):
    """How far a call is.

    Args:
        id: Of the call.
        done: Bytes so far, those of an earlier attempt included.
        total: Bytes in all, where known.
    """

    id: int
    done: int
    total: int | None


class Result(msgspec.Struct, frozen=True, tag="result", forbid_unknown_fields=True):
    """A call succeeded.

    Args:
        id: Of the call.
        value: The agent's own.
    """

    id: int
    value: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, tag="failure", forbid_unknown_fields=True):
    """A call failed, or with ``id`` 0 the start.

    Args:
        id: Of the call.
        reference: Of the error's class.
        kind: Of its family.
        message: For people.
        details: Values behind the message.
    """

    id: int
    reference: str
    kind: str
    message: str
    details: dict[str, str]


Event = Ready | Progress | Result | Failure


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class LineReader(Generic[_Message]):
    """Reads messages of one kind.

    Args:
        stream: The pipe.
        decoder: Knows what a line may be.
        limit: Bytes that one may have.
    """

    def __init__(
        self, stream: _Lines, decoder: "msgspec.json.Decoder[_Message]", limit: int
    ) -> None:
        self._stream = stream
        self._decoder = decoder
        self._limit = limit

    def read(self) -> _Message | None:
        """Give the next message; None at the end of the pipe.

        Raises:
            AgentError: A line is too long, cut short, or no such message.
        """
        line = self._stream.readline(self._limit + 1)
        if not line:
            return None
        if not line.endswith(b"\n"):
            raise AgentError(
                f"a message of {len(line)} bytes or more is cut short, or longer than the "
                f"{self._limit} allowed"
            )
        try:
            return self._decoder.decode(line)
        except NONSENSE as error:
            raise AgentError(f"a message cannot be understood: {error}") from error


def encode_line(message: msgspec.Struct) -> bytes:
    """Write a message as a line."""
    return msgspec.json.encode(message) + b"\n"
