"""What a hostile registry can do: a documented error within bounds, and no secret told."""

import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import trustme

from cas.datastores.http.transport import Transport
from cas.datastores.opening import open_registry
from cas.datastores.port import Registry
from cas.datastores.retry import Pace
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, SourceSettings, TransportSettings
from cas.errors import (
    AuthenticationError,
    CasError,
    DeniedError,
    DigestMismatchError,
    LimitExceededError,
    MalformedDocumentError,
    SizeMismatchError,
    SourceNotFoundError,
    SourceProtocolError,
    SourceStalledError,
    SourceUnavailableError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.limits import Limits
from cas.model.media_types import OCI_INDEX, OCI_MANIFEST
from cas.model.platforms import parse_platform
from cas.model.reference import ImageReference
from tests.support.fetching import BODY, FakeTime, Fetching
from tests.support.hostile_server import (
    Behaviour,
    HostileServer,
    Line,
    Request,
    answer,
    raw,
    resource,
)
from tests.support.images import encode

HIDDEN = "hunter2"
BOB = Credentials(username="bob", password=Secret(HIDDEN))
TAG = "/v2/a/manifests/1"
BLOB = Digest.of(BODY)
BLOB_PATH = f"/v2/a/blobs/{BLOB}"
LIMIT = Limits().document_bytes


def _settings(server: HostileServer) -> SourceSettings:
    return SourceSettings(
        url=f"docker://127.0.0.1:{server.port}",
        plain_http=True,
        credentials=BOB,
        transport=TransportSettings(idle_seconds=10, headers={"X-Key": Secret(HIDDEN)}),
    )


@pytest.fixture
def time() -> FakeTime:
    """No test waits for a pause."""
    return FakeTime()


@pytest.fixture
def registry(server: HostileServer, time: FakeTime) -> Iterator[Registry]:
    """The hostile one, opened."""
    pace = Pace(time.sleep, time.monotonic)
    with open_registry(_settings(server), pace=pace) as registry:
        yield registry


def _reference(server: HostileServer) -> ImageReference:
    return ImageReference.parse(f"127.0.0.1:{server.port}/a:1")


def _wants_token(server: HostileServer, realm: str) -> Behaviour:
    return answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="x"'})


def test_registry_that_refuses_every_token_is_given_up(
    server: HostileServer, registry: Registry
) -> None:
    """One new token, one more try, then an error: no loop."""
    tokens = iter(range(1000))

    def give(request: Request, line: Line) -> None:
        answer(200, body=b'{"token":"t%d"}' % next(tokens))(request, line)

    server.on(TAG, _wants_token(server, server.on("/token", give)))

    with pytest.raises(AuthenticationError):
        registry.resolve(_reference(server))

    assert len(server.asked(TAG)) == 2
    assert len(server.asked("/token")) == 1


def test_registry_that_refuses_every_password_is_given_up(
    server: HostileServer, registry: Registry
) -> None:
    """The password is sent once."""
    server.on(TAG, answer(401, {"WWW-Authenticate": 'Basic realm="x"'}))

    with pytest.raises(AuthenticationError):
        registry.resolve(_reference(server))

    sent = [request.headers.get("authorization", "") for request in server.requests]
    assert [bool(each) for each in sent] == [False, True]


@pytest.mark.parametrize(
    ("give", "error"),
    [
        (answer(401), AuthenticationError),
        (answer(200, body=b"{}"), AuthenticationError),
        (answer(200, body=b'{"token":"a\\r\\nX: y"}'), AuthenticationError),
        (answer(200, body=b"<html>"), SourceProtocolError),
        (answer(200, body=b'{"token":7}'), SourceProtocolError),
        (answer(200, body=b'{"x":' + b"[" * 100_000), SourceProtocolError),
        (answer(200, body=b'{"token":"\xff"}'), SourceProtocolError),
        (answer(200, body=b'{"token":"' + b"x" * 2**20), LimitExceededError),
        (answer(503), SourceUnavailableError),
        (answer(302, {"Location": "/token"}), SourceProtocolError),
    ],
    ids=[
        "refused",
        "none",
        "header-injection",
        "html",
        "number",
        "nested",
        "no-text",
        "endless",
        "down",
        "loop",
    ],
)
def test_token_that_is_none_is_a_documented_error(
    server: HostileServer, registry: Registry, give: Behaviour, error: type[CasError]
) -> None:
    """Whatever comes in its place."""
    server.on(TAG, _wants_token(server, server.on("/token", give)))

    with pytest.raises(error) as caught:
        registry.resolve(_reference(server))

    assert type(caught.value) is error
    assert HIDDEN not in str(caught.value.as_document())


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "//host", "http://192.0.2.1/", "[::1"])
def test_realm_that_is_no_safe_place_gets_no_credentials(
    tls: ssl.SSLContext, authority: trustme.CA, realm: str
) -> None:
    """A registry on TLS cannot send the password to plain http."""
    with HostileServer(tls) as server:
        server.on(TAG, _wants_token(server, realm))
        pem = authority.cert_pem.bytes().decode()
        settings = SourceSettings(
            url=f"docker://127.0.0.1:{server.port}",
            credentials=BOB,
            transport=TransportSettings(ca_pem=pem),
        )
        with open_registry(settings) as registry, pytest.raises(SourceProtocolError):
            registry.resolve(_reference(server))


def test_headers_of_a_registry_do_not_go_to_who_gives_tokens(
    server: HostileServer, other_server: HostileServer, registry: Registry
) -> None:
    """They are for the registry alone; the password goes where it points to."""
    realm = other_server.on("/token", answer(200, body=b'{"token":"t"}'))
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(BLOB)}
    server.on(TAG, _wants_token(server, realm), resource(b"{}", headers=headers))

    registry.resolve(_reference(server))

    asked = other_server.requests[0]
    assert "x-key" not in asked.headers
    assert asked.headers["authorization"].startswith("Basic ")
    assert asked.target == "/token?service=s&scope=repository%3Aa%3Apull"
    assert server.requests[-1].headers["authorization"] == "Bearer t"
    assert server.requests[-1].headers["x-key"] == HIDDEN


def test_blob_that_is_kept_elsewhere_is_fetched_without_credentials(
    server: HostileServer, other_server: HostileServer, fetching: Fetching
) -> None:
    """As registries in clouds do it."""
    realm = server.on("/token", answer(200, body=b'{"token":"t"}'))
    there = other_server.on("/there", resource(BODY, cut_after=2**20), resource(BODY))
    moved = answer(307, {"Location": f"{there}?sig=1"})
    server.on(BLOB_PATH, _wants_token(server, realm), moved)

    fetching(_settings(server), path=f"a@{BLOB}")

    assert fetching.file.read_bytes() == BODY
    for request in other_server.requests:
        assert "authorization" not in request.headers
        assert "x-key" not in request.headers
    assert other_server.requests[-1].headers["range"] == f"bytes={2**20}-"


def test_place_of_a_blob_that_wants_credentials_is_not_believed_where_to_send_them(
    server: HostileServer, other_server: HostileServer, registry: Registry
) -> None:
    """The registry says who gives tokens; somebody whom it sends us to for bytes does not."""
    evil = other_server.on("/token", answer(200, body=b'{"token":"t"}'))
    there = other_server.on("/there", _wants_token(other_server, evil))
    server.on(BLOB_PATH, answer(307, {"Location": there}))

    with pytest.raises(AuthenticationError):
        registry.blob("a", Descriptor(OCI_MANIFEST, BLOB, len(BODY)), limit=LIMIT)

    assert other_server.asked("/there")
    assert other_server.asked("/token") == []


def test_token_that_expires_in_the_middle_of_a_blob_is_asked_for_anew(
    server: HostileServer, fetching: Fetching
) -> None:
    """What came stays, and the rest comes with the new token."""
    first, second = (answer(200, body=b'{"token":"%s"}' % name) for name in (b"old", b"new"))
    wants = _wants_token(server, server.on("/token", first, second))
    server.on(BLOB_PATH, wants, resource(BODY, cut_after=2**20), wants, resource(BODY))

    fetching(_settings(server), path=f"a@{BLOB}")

    assert fetching.file.read_bytes() == BODY
    sent = [each.headers.get("authorization") for each in server.asked(BLOB_PATH)]
    assert sent == [None, "Bearer old", "Bearer old", "Bearer new"]
    assert server.requests[-1].headers["range"] == f"bytes={2**20}-"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (answer(200, {"Content-Type": "text/html"}, b"<html>"), MalformedDocumentError),
        (answer(200, {"Content-Type": ""}, b"{}"), MalformedDocumentError),
        (answer(200, {"Docker-Content-Digest": "md5:x", "Content-Type": OCI_MANIFEST}, b"{}"),
         MalformedDocumentError),
        (raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %s\r\n\r\n"
             % OCI_MANIFEST.encode(), forever=b"[" * 65536), LimitExceededError),
        (answer(429, {"Retry-After": "5"}, b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'),
         CasError),
    ],
    ids=["html", "no-type", "strange-digest", "endless", "rate-limited"],
)  # fmt: skip
def test_tag_with_an_answer_that_is_no_manifest_is_a_documented_error(
    server: HostileServer, registry: Registry, behaviour: Behaviour, error: type[CasError]
) -> None:
    """Whatever comes, it is bounded and named."""
    server.on(TAG, behaviour)

    with pytest.raises(error):
        registry.resolve(_reference(server))


def test_registry_that_tells_no_digest_is_read(server: HostileServer, registry: Registry) -> None:
    """The digest is then that of what it sends."""
    body = encode({"schemaVersion": 2})
    server.on(TAG, resource(body, headers={"Content-Type": OCI_MANIFEST}))

    found = registry.resolve(_reference(server))

    assert found == Descriptor(OCI_MANIFEST, Digest.of(body), len(body))


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_registry_that_refuses_head_is_asked_by_get(
    server: HostileServer, registry: Registry, status: int
) -> None:
    """For what a tag points to, and for the size of a blob."""
    manifest = resource(b"{}", headers={"Content-Type": OCI_MANIFEST})
    server.on(TAG, answer(status), manifest)
    server.on(BLOB_PATH, answer(status), resource(BODY))

    assert registry.resolve(_reference(server)).digest == Digest.of(b"{}")
    assert registry.stat(f"a@{BLOB}").size == len(BODY)


def test_document_that_is_another_is_refused(server: HostileServer, registry: Registry) -> None:
    """Manifest and blob, by size and by digest."""
    path = f"/v2/a/manifests/{BLOB}"
    server.on(path, resource(b"{}"))
    server.on(BLOB_PATH, resource(b"{}"))

    with pytest.raises(DigestMismatchError):
        registry.manifest("a", BLOB, limit=LIMIT)
    with pytest.raises(DigestMismatchError):
        registry.blob("a", Descriptor("t", BLOB, 2), limit=LIMIT)
    for size in (1, 3):
        with pytest.raises(SizeMismatchError):
            registry.blob("a", Descriptor("t", BLOB, size), limit=LIMIT)


def test_indexes_nested_too_deep_are_refused(server: HostileServer, registry: Registry) -> None:
    """Following them ends."""
    document = b"{}"
    for depth in range(10):
        entry = {
            "mediaType": OCI_INDEX if depth else OCI_MANIFEST,
            "digest": str(Digest.of(document)),
            "size": len(document),
        }
        document = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
        server.on(f"/v2/a/manifests/{Digest.of(document)}", resource(document))
    headers = {"Content-Type": OCI_INDEX, "Docker-Content-Digest": str(Digest.of(document))}
    server.on(TAG, resource(document, headers=headers))

    with pytest.raises(LimitExceededError, match="nested"):
        registry.resolve(_reference(server), platform=parse_platform("linux/amd64"))

    assert len(server.requests) < 10


@pytest.mark.parametrize("by_tag", [False, True])
def test_referrers_are_listed_from_the_call_or_from_the_tag(
    server: HostileServer, registry: Registry, by_tag: bool
) -> None:
    """Whichever the registry has."""
    entry = {"mediaType": OCI_MANIFEST, "digest": str(BLOB), "size": 5}
    index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    behaviour = resource(index, headers={"Content-Type": OCI_INDEX})
    if by_tag:
        server.on(f"/v2/a/manifests/sha256-{BLOB.hex}", behaviour)
        server.on(f"/v2/a/manifests/{Digest.of(index)}", behaviour)
    else:
        server.on(f"/v2/a/referrers/{BLOB}", behaviour)

    assert registry.referrers("a", BLOB) == (Descriptor(OCI_MANIFEST, BLOB, 5),)


def _pages(link: str) -> Behaviour:
    """Referrers without end: each page has one, and a link to the next."""

    def behave(request: Request, line: Line) -> None:
        number = int(request.target.partition("=")[2] or 0)
        entry = {"mediaType": OCI_MANIFEST, "digest": str(BLOB), "size": number}
        index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
        headers = {"Content-Type": OCI_INDEX, "Link": link.format(number + 1)}
        resource(index, headers=headers if number < 99 else {"Content-Type": OCI_INDEX})(
            request, line
        )

    return behave


@pytest.mark.parametrize(
    ("link", "count"),
    [
        ('</v2/a/referrers/x?last={}>; rel="next"', 16),
        ('<https://evil.invalid/?last={}>; title="x"; rel=next', 16),
        ('</first?last=7>; rel="first", <?last={}>; rel="next"', 16),
        ("</v2/a/referrers/x?last={}>; rel=prev", 1),
        ("</v2/a/referrers/x>; rel=next", 1),
        ("<<<>>>;;; rel=next", 1),
    ],
)
def test_referrers_in_pages_are_read_to_a_limit_and_from_the_same_place(
    server: HostileServer, registry: Registry, link: str, count: int
) -> None:
    """No link leads to another host or call, and a list without end has one."""
    path = f"/v2/a/referrers/{BLOB}"
    server.on(path, _pages(link))

    found = registry.referrers("a", BLOB)

    assert [each.size for each in found] == list(range(count))
    assert len(server.requests) == len(server.asked(path)) == count


@pytest.mark.parametrize(
    "behaviour",
    [
        resource(b"<html>", headers={"Content-Type": "text/html"}),
        resource(b"[" * 1000, headers={"Content-Type": OCI_INDEX}),
        answer(403),
    ],
    ids=["html", "garbage", "forbidden"],
)
def test_referrers_that_cannot_be_read_are_not_taken_for_none(
    server: HostileServer, registry: Registry, behaviour: Behaviour
) -> None:
    """A missing signature and an unreadable list are different answers."""
    server.on(f"/v2/a/referrers/{BLOB}", behaviour)

    with pytest.raises(CasError):
        registry.referrers("a", BLOB)


def test_temporary_failure_of_a_call_is_tried_again(
    server: HostileServer, registry: Registry, time: FakeTime
) -> None:
    """With the pause that the registry asks for."""
    body = json.dumps({"schemaVersion": 2}).encode()
    good = resource(body, headers={"Content-Type": OCI_MANIFEST})
    server.on(TAG, answer(503), answer(429, {"Retry-After": "9"}), good)

    assert registry.resolve(_reference(server)).size == len(body)
    assert len(time.pauses) == 2
    assert time.pauses[1] == 9


@pytest.mark.parametrize(
    "credentials", [BOB, Credentials(identity_token=Secret(HIDDEN))], ids=["basic", "identity"]
)
def test_credentials_for_a_token_over_plain_http_are_refused(
    server: HostileServer, credentials: Credentials
) -> None:
    """A password in a header and an identity token in a body are both credentials."""
    realm = 'Bearer realm="http://token.invalid/token",service="s"'
    server.on(TAG, answer(401, {"WWW-Authenticate": realm}))
    settings = replace(_settings(server), credentials=credentials)

    with open_registry(settings) as registry, pytest.raises(DeniedError, match="in clear"):
        registry.resolve(ImageReference.parse(f"127.0.0.1:{server.port}/a:1"))


def _dripping(head: bytes) -> Behaviour:
    def behave(_: Request, line: Line) -> None:
        line.send(head)
        while not line.released.wait(0.05):
            line.send(b"[")

    return behave


@pytest.mark.parametrize("field", [b"", b"Content-Length: 9000\r\n"], ids=["unframed", "framed"])
def test_small_answer_that_drips_for_ever_is_ended(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, field: bytes
) -> None:
    """Each byte comes within the idle limit, the whole never does."""
    monkeypatch.setattr("cas.datastores.http.answer._BODY_SECONDS", 0.3)
    url = server.on("/drip", _dripping(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n"))
    transport = Transport(TransportSettings(idle_seconds=10), url)

    with (
        closing(transport),
        transport.exchange(url) as answer,
        pytest.raises(SourceStalledError, match="not complete"),
    ):
        answer.body(LIMIT)


def test_refusal_that_drips_for_ever_is_known_by_its_status(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server writes besides is only quoted, and not waited for."""
    monkeypatch.setattr("cas.datastores.http.answer._QUOTE_SECONDS", 0.3)
    url = server.on("/drip", _dripping(b"HTTP/1.1 404 No\r\nContent-Length: 9000\r\n\r\n"))
    transport = Transport(TransportSettings(idle_seconds=10), url)

    with closing(transport), transport.exchange(url) as answer:
        assert isinstance(answer.refusal(), SourceNotFoundError)
