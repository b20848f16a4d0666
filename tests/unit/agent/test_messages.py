"""Lines between an agent and its starter: strict, bounded."""

import io

import msgspec
import pytest

from cas.agent.messages import Call, Event, Instruction, LineReader, Progress, encode_line
from cas.errors import AgentError

EVENTS: "msgspec.json.Decoder[Event]" = msgspec.json.Decoder(Event)
INSTRUCTIONS: "msgspec.json.Decoder[Instruction]" = msgspec.json.Decoder(Instruction)


def test_message_written_as_a_line_reads_back() -> None:
    """One line per message, in order, and None at the end."""
    messages = [Progress(1, 5, None), Progress(2, 5, 10)]
    reader = LineReader(io.BytesIO(b"".join(map(encode_line, messages))), EVENTS, 100)

    assert [reader.read(), reader.read(), reader.read()] == [*messages, None]


def test_request_inside_a_call_stays_as_it_is() -> None:
    """What an agent is asked is no business of the envelope."""
    line = encode_line(Call(7, msgspec.Raw(b'{"any": [1, "\\n"]}')))
    call = LineReader(io.BytesIO(line), INSTRUCTIONS, 100).read()

    assert isinstance(call, Call)
    assert (call.id, bytes(call.request)) == (7, b'{"any": [1, "\\n"]}')


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        b'{"type":"progress","id":"1","done":1,"total":1}\n',
        b'{"type":"progress","id":1,"done":1,"total":1,"more":1}\n',
        b'{"type":"other","id":1}\n',
        b'{"type":"progress","id":1,"done":1,"total":1}',
        b'{"type":"progress","id":1,"done":1,"total":' + b" " * 100 + b"1}\n",
    ],
)
def test_line_that_is_no_message_is_an_error(line: bytes) -> None:
    """Wrong types, unknown keys and kinds, cut or endless lines; all are one error."""
    with pytest.raises(AgentError):
        LineReader(io.BytesIO(line), EVENTS, 100).read()


def test_endless_line_is_not_read_beyond_the_limit() -> None:
    """An agent cannot fill the memory of its starter."""
    stream = io.BytesIO(b"x" * 1000)
    with pytest.raises(AgentError):
        LineReader(stream, EVENTS, 100).read()

    assert stream.tell() <= 101
