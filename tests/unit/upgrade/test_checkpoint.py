"""The parser of the device's configuration: both forms, damaged in every way, and its limits."""

import random
import time
import uuid

import pytest
from google.protobuf.descriptor import Descriptor

from cas._gen.eve.auth.auth_pb2 import AuthContainer
from cas._gen.eve.config import devconfig_pb2 as eve
from cas.errors import LimitExceededError, MalformedDocumentError
from cas.upgrade.checkpoint import MAX_CHECKPOINT_BYTES, parse_checkpoint
from tests.support.checkpoint_fuzz import CheckpointFuzzer, judge

PUBLISHED = {
    "ConfigResponse": {"config": 1},
    "EdgeDevConfig": {"id": 1, "apps": 4, "contentInfo": 20, "volumes": 21},
    "UUIDandVersion": {"uuid": 1},
    "AppInstanceConfig": {"uuidandversion": 1, "drives": 4, "purge": 10, "volumeRefList": 16},
    "InstanceOpsCmd": {"counter": 2},
    "Drive": {"image": 1},
    "Image": {"uuidandversion": 1, "sha256": 3},
    "VolumeRef": {"uuid": 1, "generationCount": 2},
    "Volume": {"uuid": 1, "origin": 2, "clear_text": 8},
    "VolumeContentOrigin": {"downloadContentTreeID": 2},
    "ContentTree": {"uuid": 1, "sha256": 5},
    "AuthContainer": {"protectedPayload": 1, "senderCertHash": 3, "signatureHash": 4},
    "AuthBody": {"payload": 1},
}
"""Field numbers of lf-edge/eve-api, proto/config and proto/auth."""
FOUND_BY_FUZZING = (
    b"\x0b\x0c\x0a\x00",  # a group before a message
    b"\x1b\x0a\x02\x22\x00\x1c\x0a\x02\x22\x00",  # and one around another
)
_FUZZ_ROUNDS = 3000


def _descriptors() -> list[Descriptor]:
    from cas._gen.eve.auth import auth_pb2

    return [
        *eve.DESCRIPTOR.message_types_by_name.values(),
        *auth_pb2.DESCRIPTOR.message_types_by_name.values(),
    ]


def test_declared_fields_have_the_published_numbers() -> None:
    """A wrong number would read another field, or nothing, without an error."""
    declared = {
        message.name: {field.name: field.number for field in message.fields}
        for message in _descriptors()
    }
    assert declared == PUBLISHED


def _response() -> eve.ConfigResponse:
    response = eve.ConfigResponse()
    response.config.id.uuid = str(uuid.UUID(int=1))
    app = response.config.apps.add()
    app.uuidandversion.uuid = str(uuid.UUID(int=2))
    app.purge.counter = 3
    app.drives.add()
    drive = app.drives.add()
    drive.image.uuidandversion.uuid = str(uuid.UUID(int=3))
    drive.image.sha256 = "A" * 64
    app.volumeRefList.add(uuid=str(uuid.UUID(int=4)), generationCount=5)
    app.volumeRefList.add(uuid="nonsense", generationCount=-1)
    response.config.apps.add()
    volume = response.config.volumes.add(uuid=str(uuid.UUID(int=4)), clear_text=True)
    volume.origin.downloadContentTreeID = str(uuid.UUID(int=6))
    response.config.contentInfo.add(uuid=str(uuid.UUID(int=6)), sha256="b" * 64)
    return response


def _contained(payload: bytes, *, cert: bytes = b"", signature: bytes = b"") -> bytes:
    container = AuthContainer(senderCertHash=cert, signatureHash=signature)
    container.protectedPayload.payload = payload
    return container.SerializeToString()


@pytest.mark.parametrize("fields", [None, {}, {"cert": b"x"}, {"signature": b"y"}])
def test_config_bare_or_contained_is_the_same(fields: dict[str, bytes] | None) -> None:
    """Both forms decode as each other; the device's UUID tells which it is."""
    data = _response().SerializeToString()
    config = parse_checkpoint(data if fields is None else _contained(data, **fields))
    [app] = config.apps
    assert (app.app.int, app.purge) == (2, 3)
    assert app.drives[0] is None
    assert app.drives[1] is not None
    assert app.drives[1].image == uuid.UUID(int=3)
    assert str(app.drives[1].digest) == "sha256:" + "a" * 64
    assert [(each.volume and each.volume.int, each.generation) for each in app.references] == [
        (4, 5),
        (None, -1),
    ]
    assert config.volumes[uuid.UUID(int=4)].clear_text
    assert str(config.content_trees[uuid.UUID(int=6)]) == "sha256:" + "b" * 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 100,
        b"{}",
        AuthContainer(senderCertHash=b"x").SerializeToString(),
        eve.ConfigResponse().SerializeToString(),
        _contained(b"not a message \xff"),
        _contained(_contained(_response().SerializeToString())),
    ],
)
def test_what_is_no_config_is_refused(data: bytes) -> None:
    """Nothing without a device's UUID is taken for an empty configuration."""
    with pytest.raises(MalformedDocumentError):
        parse_checkpoint(data)


def test_config_that_is_too_large_is_refused() -> None:
    """Bytes take no memory without a bound."""
    with pytest.raises(LimitExceededError):
        parse_checkpoint(bytes(MAX_CHECKPOINT_BYTES + 1))


@pytest.mark.parametrize("before", [b"", b"\x0b\x0d1234\x0c"])
def test_config_that_is_too_fine_is_refused(before: bytes) -> None:
    """Messages of two bytes each take no memory without a bound, whatever stands before them.

    Groups, which the parser skips and nobody writes any more, hid them: the fuzzer found that.
    """
    config = eve.EdgeDevConfig(id=_response().config.id).SerializeToString() + b"\x22\x00" * 220_000
    size = len(config)
    head = bytes([0x0A, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F])
    with pytest.raises(LimitExceededError):
        parse_checkpoint(before + head + config)


def test_damaged_config_is_an_error_and_never_a_traceback(pytestconfig: pytest.Config) -> None:
    """A value that keeps its promises or a documented error; counted are no fewer parts than are.

    ``--fuzz-seconds`` goes on for that much processor time.
    """
    whole = _response().SerializeToString()
    seeds = [b"", whole, _contained(whole), _contained(whole, cert=b"cert"), *FOUND_BY_FUZZING]
    for seed in seeds:
        judge(seed)
    fuzzer = CheckpointFuzzer(seeds, random.Random(int(pytestconfig.getoption("--crash-seed"))))
    end = time.process_time() + float(pytestconfig.getoption("--fuzz-seconds"))
    rounds = 0
    while rounds < _FUZZ_ROUNDS or time.process_time() < end:
        fuzzer.round()
        rounds += 1
    print(f"{rounds} configurations")
