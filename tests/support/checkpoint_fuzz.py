"""Damages device configurations in every way that comes to mind, and judges what is made of them.

Inputs that behave as none before join the ones to damage, so that the damage gets deeper with time.
"""

__all__ = ["CheckpointFuzzer", "judge", "parts_of"]

import random
from collections.abc import Iterable
from contextlib import suppress

from google.protobuf.message import DecodeError, Message

from cas._gen.eve.auth.auth_pb2 import AuthContainer
from cas._gen.eve.config import devconfig_pb2 as eve
from cas.errors import LimitExceededError, MalformedDocumentError
from cas.model.digest import Digest
from cas.upgrade.checkpoint import parse_checkpoint
from cas.upgrade.device_config import DeviceConfig
from cas.upgrade.matching import Match, VolumeMatching, latch_keys
from cas.upgrade.message_parts import count_parts
from cas.upgrade.old_name import OldName

_MAX_BYTES = 4000
_MAX_CORPUS = 2000
_MORE_THAN_ANY = 10**9
_WORDS = (
    *(b"", b"\x00", b"\xff", b"\x80", b"\x7f", b"\x0a\x00", b"\x22\x00", b"\x12\x00", b"\x0a\x80"),
    *(b"\x0b", b"\x0c", b"\x23", b"\x24", b"\xa3\x06\xa4\x06", b"\x0b\x0c", b"\x06", b"\x07"),
    *(b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80" * 9 + b"\x01", b"\x80" * 4 + b"\x10"),
    *(b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x8a\x80\x00", b"\x0a\x82\x80\x00"),
    *(b"\xa2\x01\x00", b"\xaa\x01\x00", b"\x82\x01\x00", b"\x52\x00", b"\x50\x05", b"\x0d"),
    *(b"0" * 36, b"00000000-0000-0000-0000-000000000000", b"{urn:uuid:", b"A" * 64, b"sha256:"),
    *("\u0660".encode() * 64, b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9"),
)
"""What parsers of the wire format, of UUIDs and of digests trip over."""


class CheckpointFuzzer:
    """Makes one damaged configuration after the other.

    Args:
        seeds: What to begin with.
        source: Of chance.
    """

    def __init__(self, seeds: Iterable[bytes], source: random.Random) -> None:
        self._corpus = list(seeds)
        self._source = source
        self._seen: set[object] = set()

    def round(self) -> bytes:
        """Make one, and judge it.

        Raises:
            AssertionError: What it was taken for is wrong; its notes have the input.
            Exception: What came out of the parser, and should not; likewise.
        """
        data = self._damaged()
        try:
            trait = judge(data)
        except BaseException as error:
            error.add_note(f"input: {data.hex()}")
            raise
        if trait not in self._seen and len(self._corpus) < _MAX_CORPUS:
            self._seen.add(trait)
            self._corpus.append(data)
        return data

    def _damaged(self) -> bytes:
        source = self._source
        data = bytearray(source.choice(self._corpus))
        for _ in range(min(8, int(source.expovariate(0.5)) + 1)):
            self._damage(data)
        return bytes(data[:_MAX_BYTES])

    def _damage(self, data: bytearray) -> None:
        source = self._source
        start = source.randrange(len(data) + 1)
        end = min(len(data), start + int(source.expovariate(0.1)))
        match source.randrange(9):
            case 0:
                data[start:end] = b""
            case 1:
                data[start:start] = source.choice(_WORDS)
            case 2:
                data[start:end] = source.choice(_WORDS)
            case 3 if start < len(data):
                data[start] ^= 1 << source.randrange(8)
            case 4 if start < len(data):
                data[start] = (data[start] + source.randrange(-3, 4)) % 256
            case 5:
                data[start:start] = data[start:end] * source.randrange(1, 20)
            case 6:
                other = source.choice(self._corpus)
                data[start:end] = other[source.randrange(len(other) + 1) :]
            case 7:
                wrapped = _field(source.choice((1, 2, 4, 10, 16, 20, 21)), bytes(data[start:end]))
                data[start:end] = wrapped
            case 8:
                data[start:end] = source.randbytes(end - start)


def judge(data: bytes) -> object:
    """Parse it as a checkpoint, and see that what comes out holds what it promises.

    Returns:
        What is remarkable about it.
    """
    counted = 0
    for message in (eve.ConfigResponse(), AuthContainer()):
        with suppress(DecodeError):
            message.ParseFromString(data)
            parts = parts_of(message)
            counted = count_parts(data, message.DESCRIPTOR, _MORE_THAN_ANY)
            assert parts <= counted, f"{parts} parts in {type(message).__name__}, not {counted}"
    try:
        config = parse_checkpoint(data)
    except (MalformedDocumentError, LimitExceededError) as error:
        return type(error), counted.bit_length()
    return _judge_config(config), counted.bit_length()


def parts_of(message: Message) -> int:
    """Count the messages in a message."""
    count = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = value if field.is_repeated else [value]
            count += sum(1 + parts_of(part) for part in parts)
    return count


def _judge_config(config: DeviceConfig) -> object:
    assert config.device.int
    assert all(key.int for key in (*config.volumes, *config.content_trees))
    drives = [drive for app in config.apps for drive in app.drives if drive is not None]
    digests = {Digest("a" * 64), *(drive.digest for drive in drives if drive.digest is not None)}
    latched = dict.fromkeys(latch_keys(config), Digest("a" * 64))
    found = set()
    for matching in (VolumeMatching(config, {}), VolumeMatching(config, latched)):
        for app in config.apps:
            assert app.app.int
            for digest in digests:
                match = matching.find(OldName(digest, app.app, app.purge, "raw"))
                assert not isinstance(match, Match) or match.volume.uuid.int
                found.add(type(match) if isinstance(match, Match) else match.reason)
    sizes = (len(config.apps), len(config.volumes), len(config.content_trees), len(latched))
    return frozenset(found), tuple(min(size, 5) for size in sizes)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded + bytes([value]))
