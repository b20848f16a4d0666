"""Servers at their worst, through the command and both agents.

Whatever they do: the status of a family, words for people, no name in the store, no byte that is
not what its digest says, and no file: but where the same call may succeed later, what it goes on
with.
"""

import gzip
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import DigestMismatchError
from cas.model.digest import Digest
from cas.model.media_types import OCI_MANIFEST
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName, image_uuid
from tests.integration.pull.conftest import left_by
from tests.support.command import Cas
from tests.support.daemon import WAIT_SECONDS
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import (
    Behaviour,
    HostileServer,
    Line,
    Request,
    answer,
    raw,
    resource,
)
from tests.support.images import BuiltImage, build_image
from tests.support.layers import build_layer, file
from tests.support.stores import own_blobs

BODY = random.Random(4).randbytes(300_000)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
KEPT = ".partial", ".progress"


@dataclass(frozen=True)
class Hostile:
    """What a server does with a good body, and how that ends.

    Args:
        behave: Makes the behaviour.
        status: Of the command.
        reference: Of its error.
        kept: What came may be kept to go on with.
    """

    behave: Callable[[bytes], Behaviour]
    status: int
    reference: str
    kept: bool = False

    @property
    def temporary(self) -> bool:
        """Whether what came of other blobs is good for a later call."""
        return self.reference in ("source-unavailable", "source-stalled", "rate-limited")


def dripping(head: bytes, drop: bytes) -> Behaviour:
    """Answer, a few bytes at a time, without an end."""

    def behave(_: Request, line: Line) -> None:
        line.send(head)
        while not line.released.wait(0.02):
            line.send(drop)

    return behave


def silent(_: Request, line: Line) -> None:
    line.hold()


CASES = {
    "cut-after-n-bytes": Hostile(
        lambda body: resource(body, etag=None, cut_after=1000), 8, "source-unavailable", kept=True
    ),
    "cut-the-hard-way": Hostile(
        lambda body: resource(body, etag=None, cut_after=1000, then=Line.reset),
        8,
        "source-unavailable",
        kept=True,
    ),
    "wrong-digest": Hostile(lambda body: resource(bytes(len(body))), 5, "digest-mismatch"),
    "wrong-length-short": Hostile(
        lambda body: resource(body, length=len(body) - 1), 5, "size-mismatch"
    ),
    "wrong-length-long": Hostile(
        lambda body: resource(body, length=len(body) + 1), 5, "size-mismatch"
    ),
    "extra-byte": Hostile(lambda body: resource(body + b"x", length=-1), 5, "size-mismatch"),
    "gzip-nobody-asked-for": Hostile(
        lambda body: resource(gzip.compress(body), headers={"Content-Encoding": "gzip"}),
        5,
        "size-mismatch",
    ),
    "redirect-loop": Hostile(
        lambda _: lambda request, line: answer(302, {"Location": request.target})(request, line),
        8,
        "source-protocol",
    ),
    "401-loop": Hostile(
        lambda _: answer(401, {"WWW-Authenticate": 'Basic realm="x"'}), 9, "authentication-refused"
    ),
    "429": Hostile(lambda _: answer(429, {"Retry-After": "86400"}), 8, "rate-limited"),
    "500": Hostile(lambda _: answer(500, {}, b"<html>" * 1000), 8, "source-unavailable"),
    "503": Hostile(lambda _: answer(503), 8, "source-unavailable"),
    "no-answer": Hostile(lambda _: silent, 8, "source-stalled"),
    "slow-drip": Hostile(
        lambda body: dripping(HEAD + b"Content-Length: %d\r\n\r\n" % len(body), b"x"),
        8,
        "source-stalled",
        kept=True,
    ),
    "header-drip": Hostile(lambda _: dripping(HEAD, b"X-A: b\r\n"), 8, "source-stalled"),
    "header-flood": Hostile(
        lambda _: raw(HEAD, forever=b"X-A: b\r\n" * 9000), 8, "source-protocol"
    ),
    "header-line-flood": Hostile(lambda _: raw(HEAD, forever=b"a" * 65536), 8, "source-protocol"),
    "no-http": Hostile(lambda _: raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), 8, "source-protocol"),
}

DOCUMENTS = {
    **{name: CASES[name] for name in ("401-loop", "429", "redirect-loop", "503", "no-answer")},
    "wrong-digest": Hostile(
        lambda body: resource(bytes(len(body)), headers={"Content-Type": OCI_MANIFEST}),
        5,
        "digest-mismatch",
    ),
    "endless": Hostile(lambda _: raw(HEAD + b"\r\n", forever=b"[" * 65536), 5, "limit-exceeded"),
    "endless-chunks": Hostile(
        lambda _: raw(CHUNKED, forever=b"1000\r\n" + b"[" * 4096 + b"\r\n"),
        5,
        "limit-exceeded",
    ),
    "header-flood": CASES["header-flood"],
    "header-drip": CASES["header-drip"],
}


@pytest.fixture
def cas(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cas:
    """The command, which tries nothing again."""
    cas = Cas(case.settings, tmp_path, capsys)
    with (tmp_path / "cas.toml").open("a") as stream:
        stream.write("[download]\nattempts = 1\ndigest_attempts = 1\n")
    return cas


def shorten_patience(hostile: Hostile, directory: Path) -> None:
    """Make the command impatient with a server that stands still, and with no other.

    Else a machine that halts for a moment would be taken for the server.
    """
    if hostile.reference == "source-stalled":
        with (directory / "cas.toml").open("a") as stream:
            stream.write("idle_seconds = 0.5\nstall_seconds = 0.5\n")


def assert_nothing_is_seen(
    case: Case, good: set[Digest], *, kept: bool, others: bool = False
) -> None:
    """What the store has is whole, and what lies about is for a later call.

    Args:
        case: The store.
        good: Blobs that it may have.
        kept: A part of the bad one may lie about.
        others: The good ones may be on their way.
    """
    assert own_blobs(case.backing) <= good
    left = left_by(case)
    of_good = tuple(digest.hex for digest in good) if others else ()
    stray = [name for name in left.files if not any(each in name for each in of_good)]
    assert [name for name in stray if not kept or not name.endswith(KEPT)] == []
    assert left.reservations == []


def image_of(*bodies: bytes) -> BuiltImage:
    return build_image([build_layer([file("data", body)]) for body in bodies])


@pytest.mark.parametrize("kind", CASES)
def test_layer_from_a_hostile_registry_ends_the_pull(
    kind: str, cas: Cas, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """Each way has its family of errors; another layer and the configuration come beside it."""
    image = image_of(BODY, BODY[:200_000])
    reference = registry.publish(image)
    layer = image.layers[0]
    hostile = CASES[kind]
    shorten_patience(hostile, tmp_path)
    registry.behave(layer.digest, hostile.behave(layer.blob))

    result = cas("image", "pull", reference)

    result.assert_orderly(hostile.status)
    assert f"[{hostile.reference}]" in result.err
    assert not case.images.exists(reference)
    good = {Digest.parse(digest) for digest in image.blobs} - {Digest.parse(layer.digest)}
    assert_nothing_is_seen(case, good, kept=hostile.kept, others=hostile.temporary)


def test_blob_half_here_when_another_one_fails_for_good_does_not_stay(
    case: Case, registry: HostileRegistry
) -> None:
    """Nobody would go on with it."""
    image = image_of(BODY, BODY[:200_000])
    reference = registry.publish(image)
    bad, good = image.layers
    half_sent = threading.Event()

    def half(_: Request, line: Line) -> None:
        line.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(good.blob) + good.blob[:100_000])
        half_sent.set()
        line.hold()

    def wrong(request: Request, line: Line) -> None:
        half_sent.wait(WAIT_SECONDS)
        resource(bytes(len(bad.blob)))(request, line)

    registry.behave(bad.digest, wrong)
    registry.behave(good.digest, half)
    with pytest.raises(DigestMismatchError):
        case.pull.image(reference)

    assert left_by(case).files == []


def test_blob_that_an_earlier_call_left_whole_goes_when_another_one_fails_for_good(
    pull_settings: Settings, registry: HostileRegistry
) -> None:
    """Wherever it is on its way, and although this call does not come to it."""
    image = image_of(BODY, BODY[:200_000], BODY[:100_000])
    reference = registry.publish(image)
    bad, first, second = image.layers
    registry.behave(bad.digest, resource(bytes(len(bad.blob))))
    with Case.open(
        replace(pull_settings, download=replace(pull_settings.download, parallel=1))
    ) as case:
        layout, uuid = case.settings.layout, image_uuid(reference)
        digest = Digest.parse(first.digest)
        layout.download(TransferName(uuid, digest)).write_bytes(first.blob)
        (layout.verified / Digest.parse(second.digest).hex).write_bytes(second.blob)
        with pytest.raises(DigestMismatchError):
            case.pull.image(reference)

        assert left_by(case).files == []
        assert registry.blob_requests([first.digest, second.digest]) == 0


@pytest.mark.parametrize(
    ("by", "kind"),
    [("tag", kind) for kind in DOCUMENTS]
    + [("digest", kind) for kind in ("wrong-digest", "endless", "header-flood", "no-answer")],
)
def test_manifest_from_a_hostile_registry_ends_the_pull(
    by: str, kind: str, cas: Cas, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """Before anything is taken in; a tag can name anything that has a digest."""
    image = image_of(BODY)
    reference = registry.publish(image)
    hostile = DOCUMENTS[kind]
    shorten_patience(hostile, tmp_path)
    if by == "digest":
        reference = f"{registry.address}/app@{image.digest}"
    registry.on(f"/v2/app/manifests/{image.digest}", hostile.behave(image.manifest))

    result = cas("image", "pull", reference)

    result.assert_orderly(hostile.status)
    assert f"[{hostile.reference}]" in result.err
    assert not case.images.exists(reference)
    assert_nothing_is_seen(case, set(), kept=False)


@pytest.mark.parametrize(
    "kind", ["cut-after-n-bytes", "wrong-digest", "extra-byte", "slow-drip", "redirect-loop", "429"]
)
def test_file_from_a_hostile_server_ends_the_download(
    kind: str, cas: Cas, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """As the layer of an image does; tests/integration/datastores has more of these."""
    hostile = CASES[kind]
    shorten_patience(hostile, tmp_path)
    url = registry.on("/disk", hostile.behave(BODY))

    result = cas("download", url, "--digest", Digest.of(BODY), "--size", len(BODY))

    result.assert_orderly(hostile.status)
    assert f"[{hostile.reference}]" in result.err
    assert_nothing_is_seen(case, set(), kept=hostile.kept)


def test_file_that_changed_between_two_attempts_is_not_mixed(
    cas: Cas, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """The first half of the old one is not gone on with."""
    config = tmp_path / "cas.toml"
    config.write_text(config.read_text().replace("\nattempts = 1", "\nattempts = 3"))
    other = bytes(reversed(BODY))
    first = resource(BODY, etag='"one"', cut_after=200_000)
    url = registry.on("/disk", first, resource(other, etag='"two"'))

    result = cas("download", url, "--digest", Digest.of(other), "--size", len(BODY))

    assert result.status == 0, result
    assert b"".join(case.blobs.read(Digest.of(other))) == other
    assert left_by(case).files == []
    assert [request.headers.get("if-match") for request in registry.requests] == [
        None,
        '"one"',
        None,
    ]


def test_file_at_another_host_comes_without_our_credentials(
    cas: Cas, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """User, password and headers of the configuration stay with their server."""
    for name, text in {"password": "hunter2", "headers": "X-Key: hunter2\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    with (tmp_path / "cas.toml").open("a") as stream:
        stream.write(
            f"[datastore.{json.dumps(registry.url)}]\nusername = 'u'\n"
            f"password_file = '{tmp_path}/password'\nheaders_file = '{tmp_path}/headers'\n"
        )
    with HostileServer() as elsewhere:
        target = elsewhere.on("/there", resource(BODY))
        url = registry.on("/disk", answer(302, {"Location": target}))

        assert cas("download", url, "--digest", Digest.of(BODY)).status == 0

        assert {"authorization", "x-key"} <= set(registry.asked("/disk")[0].headers)
        for request in elsewhere.requests:
            assert not {"authorization", "x-key"} & set(request.headers)
    assert left_by(case).files == []
