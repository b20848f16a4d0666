"""What a hostile or broken server can do to a transfer: a documented error, and nothing left."""

import pytest

from cas.errors import (
    AuthenticationError,
    CasError,
    LimitExceededError,
    SizeMismatchError,
    SourceNotFoundError,
    SourceProtocolError,
    SourceStalledError,
    SourceUnavailableError,
)
from tests.support.fetching import BODY, MIB, Fetching
from tests.support.hostile_server import (
    Behaviour,
    HostileServer,
    Line,
    Request,
    answer,
    raw,
    resource,
)
from tests.support.waiting import wait_for


def _hold(_: Request, line: Line) -> None:
    line.hold()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _drip_trailer(_: Request, line: Line) -> None:
    line.send(CHUNKED + b"3\r\nabc\r\n0\r\n")
    while not line.released.wait(0.03):
        line.send(b"X-A: b\r\n")


def _flood_trailer(_: Request, line: Line) -> None:
    line.send(CHUNKED + b"0\r\n")
    line.flood(b"X-A: b\r\n" * 9000)


def _drip_chunk_length(_: Request, line: Line) -> None:
    line.send(CHUNKED)
    while not line.released.wait(0.03):
        line.send(b"0")


def _drip_headers(_: Request, line: Line) -> None:
    line.send(HEAD)
    while not line.released.wait(0.03):
        line.send(b"X-A: b\r\n")


HEAD = b"HTTP/1.1 200 OK\r\n"

FATAL: list[tuple[str, list[Behaviour], int | None, type[CasError]]] = [
    ("absent", [answer(404, body=b"no")], None, SourceNotFoundError),
    ("gone", [answer(410)], None, SourceNotFoundError),
    ("nonsense-status", [answer(418)], None, SourceProtocolError),
    ("answer-without-content", [answer(204)], None, SourceProtocolError),
    ("part-nobody-asked-for", [answer(206, body=b"x")], None, SourceProtocolError),
    ("longer-than-wanted", [resource(BODY)], len(BODY) - 1, SizeMismatchError),
    ("shorter-than-wanted", [resource(BODY)], len(BODY) + 1, SizeMismatchError),
    ("extra-byte", [resource(BODY + b"x", length=-1)], len(BODY), SizeMismatchError),
    ("length-is-no-number", [resource(BODY, length=-1, headers={"Content-Length": "1e3"})], None,
     SourceProtocolError),
    ("negative-length", [resource(BODY, length=-5)], None, SourceProtocolError),
    ("gzip-nobody-asked-for",
     [resource(b"\x1f\x8b\x08\0small", headers={"Content-Encoding": "gzip"})], len(BODY),
     SizeMismatchError),
    ("page-instead", [resource(b"<html>", headers={"Content-Type": "text/html"})], len(BODY),
     SizeMismatchError),
    ("announced-too-large", [resource(b"", length=65 * MIB)], None, LimitExceededError),
    ("endless", [raw(HEAD + b"\r\n", forever=bytes(MIB))], None,
     LimitExceededError),
    ("header-flood", [raw(HEAD, forever=b"X-A: b\r\n")], None,
     SourceProtocolError),
    ("header-line-without-end", [raw(HEAD, forever=b"a" * 65536)], None,
     SourceProtocolError),
    ("no-http", [raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")], None, SourceProtocolError),
    ("redirect-nowhere", [answer(302)], None, SourceProtocolError),
    ("redirect-to-a-file", [answer(302, {"Location": "file:///etc/passwd"})], None,
     SourceProtocolError),
    ("redirect-loop", [answer(302, {"Location": "/blob"})], None, SourceProtocolError),
    ("login", [answer(401, {"WWW-Authenticate": "Basic"})], None, AuthenticationError),
    ("forbidden", [answer(403)], None, AuthenticationError),
]  # fmt: skip

TEMPORARY: list[tuple[str, list[Behaviour], type[CasError]]] = [
    ("server-error", [answer(500)], SourceUnavailableError),
    ("bad-gateway-page", [answer(502, {}, b"<html>" * 100_000)], SourceUnavailableError),
    ("captive-portal", [answer(511)], SourceUnavailableError),
    ("no-answer", [_hold], SourceStalledError),
    ("headers-drip", [_drip_headers], SourceStalledError),
    ("cut-within-the-headers", [raw(HEAD + b"X-A: b\r\n")], SourceUnavailableError),
    ("closed-at-once", [raw(b"")], SourceUnavailableError),
    ("cut-before-the-first-byte", [resource(BODY, cut_after=0)], SourceUnavailableError),
    ("stall-in-the-middle", [resource(BODY, etag=None, cut_after=9, then=Line.hold)],
     SourceStalledError),
    ("cut-without-validator", [resource(BODY, etag=None, cut_after=MIB)], SourceUnavailableError),
    ("cut-with-weak-validator", [resource(BODY, etag='W/"one"', cut_after=MIB)],
     SourceUnavailableError),
    ("chunk-length-is-no-number",
     [raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n")], SourceUnavailableError),
    ("trailer-drips", [_drip_trailer], SourceStalledError),
    ("trailer-without-end", [_flood_trailer], SourceStalledError),
    ("chunk-length-drips", [_drip_chunk_length], SourceStalledError),
    ("chunks-without-end", [raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")],
     SourceUnavailableError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("behaviours", "size", "error"),
    [case[1:] for case in FATAL],
    ids=[case[0] for case in FATAL],
)
def test_answer_that_no_repetition_mends_fails_at_once_and_leaves_nothing(
    server: HostileServer,
    fetching: Fetching,
    behaviours: list[Behaviour],
    size: int | None,
    error: type[CasError],
) -> None:
    """One class of error per case, no second attempt, no file."""
    server.on("/blob", *behaviours)

    with pytest.raises(error) as caught:
        fetching(server.url, size=size)

    assert type(caught.value) is error
    assert fetching.time.pauses == []
    assert fetching.names() == []


@pytest.mark.parametrize(
    ("behaviours", "error"),
    [case[1:] for case in TEMPORARY],
    ids=[case[0] for case in TEMPORARY],
)
def test_answer_that_stays_bad_is_tried_so_often_and_leaves_nothing(
    server: HostileServer,
    fetching: Fetching,
    behaviours: list[Behaviour],
    error: type[CasError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Growing pauses, a bounded number of attempts, and nothing that could not be resumed."""
    server.on("/blob", *behaviours)
    if error is SourceStalledError:
        fetching.idle_seconds = 0.2  # of silence, which is what the test is about
        monkeypatch.setattr("cas.datastores.http.answer._READ_SECONDS", 0.2)

    with pytest.raises(error) as caught:
        fetching(server.url)

    assert type(caught.value) is error
    # The last request may have been given up before it was read.
    wait_for(lambda: len(server.asked("/blob")) >= fetching.policy.retry.attempts)
    assert len(server.asked("/blob")) == fetching.policy.retry.attempts
    assert [0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(fetching.time.pauses)] == [
        True
    ] * 3
    assert fetching.names() == []
