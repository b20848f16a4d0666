"""Credentials, TLS, proxies and pauses of datastores that speak HTTP."""

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import trustme

from cas.datastores.opening import open_source
from cas.datastores.retry import RetryPolicy
from cas.datastores.secret import Secret
from cas.datastores.settings import (
    Credentials,
    Proxies,
    SourceSettings,
    TransportSettings,
    decode_settings,
    encode_settings,
)
from cas.errors import (
    AuthenticationError,
    CasError,
    ConfigError,
    DeniedError,
    RateLimitedError,
    SourceProtocolError,
    SourceUnavailableError,
    UntrustedServerError,
)
from tests.support.fetching import BODY, Fetching
from tests.support.hostile_server import DATE, HostileServer, Line, Request, answer, resource

HIDDEN = "hunter2"
BASIC = "Basic Ym9iOmh1bnRlcjI="  # bob:hunter2
BOB = Credentials(username="bob", password=Secret(HIDDEN))


@pytest.fixture
def tls_server(tls: ssl.SSLContext) -> Iterator[HostileServer]:
    """A server with a certificate of the private authority."""
    with HostileServer(tls) as server:
        yield server


def _trusting(authority: trustme.CA) -> TransportSettings:
    pem = authority.cert_pem.bytes().decode()
    return TransportSettings(ca_pem=pem, idle_seconds=10)


def test_object_is_described_without_being_read(server: HostileServer, fetching: Fetching) -> None:
    """Size and validator come from the headers."""
    server.on("/blob", resource(BODY, headers={"Content-Type": "Application/X; charset=a"}))

    with open_source(fetching.settings(server.url)) as source:
        remote = source.stat("blob")

    assert (remote.size, remote.media_type) == (len(BODY), "application/x")
    assert remote.validator is not None
    assert server.requests[0].method == "HEAD"


@pytest.mark.parametrize("status", [204, 401, 403, 404, 405, 500, 501])
def test_object_whose_server_refuses_head_is_described_by_get(
    server: HostileServer, fetching: Fetching, status: int
) -> None:
    """As that of a signed URL, whose signature is good for one method."""
    server.on("/blob", answer(status), resource(BODY))

    with open_source(fetching.settings(server.url)) as source:
        assert source.stat("blob").size == len(BODY)

    assert [request.method for request in server.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_wants_a_pause_is_not_asked_again_at_once(
    server: HostileServer, fetching: Fetching, status: int
) -> None:
    """By GET no more than by HEAD."""
    server.on("/blob", answer(status), resource(BODY))

    with open_source(fetching.settings(server.url)) as source, pytest.raises(CasError):
        source.stat("blob")

    assert [request.method for request in server.requests] == ["HEAD"]


@pytest.mark.parametrize("status", [403, 404, 501])
def test_object_that_get_refuses_too_is_not_described(
    server: HostileServer, fetching: Fetching, status: int
) -> None:
    """What is forbidden stays forbidden."""
    server.on("/blob", answer(status))

    with open_source(fetching.settings(server.url)) as source, pytest.raises(CasError) as caught:
        source.stat("blob")

    assert caught.value.details["status"] == status


def test_credentials_and_headers_stay_with_their_host(
    server: HostileServer, other_server: HostileServer, fetching: Fetching
) -> None:
    """A redirect to another host takes the range along, and nothing that opens a door."""
    target = other_server.on("/blob", resource(BODY, cut_after=2**20), resource(BODY))
    server.on("/blob", answer(307, {"Location": "/moved"}))
    server.on("/moved", answer(302, {"Location": target}))
    settings = SourceSettings(
        url=server.url,
        credentials=BOB,
        transport=TransportSettings(headers={"X-Key": Secret(HIDDEN)}),
    )

    fetching(settings)

    for request in server.requests:
        assert request.headers["authorization"] == BASIC
        assert request.headers["x-key"] == HIDDEN
    for request in other_server.requests:
        assert "authorization" not in request.headers
        assert "x-key" not in request.headers
        assert "hunter2" not in str(request)
    assert other_server.requests[-1].headers["range"] == "bytes=1048576-"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{other}\\@127.0.0.1:{own}/x",
        "http://bob@127.0.0.1:{other}/x",
        "http://127.0.0.1:{other} /x",
        "http://127.0.0.1:{other}\x7f/x",
    ],
)
def test_redirect_whose_host_is_ambiguous_is_not_followed(
    server: HostileServer, other_server: HostileServer, fetching: Fetching, location: str
) -> None:
    """Two parsers may see two hosts in it, and credentials would go to the wrong one."""
    target = location.format(other=other_server.port, own=server.port)
    server.on("/blob", answer(302, {"Location": target}))

    with pytest.raises(SourceProtocolError, match="no plain URL"):
        fetching(SourceSettings(url=server.url, credentials=BOB))

    assert other_server.requests == []


def test_credentials_in_the_url_are_used_and_never_shown(
    server: HostileServer, fetching: Fetching, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in errors, nor in the name, nor in any log, however verbose."""
    caplog.set_level(logging.DEBUG)
    server.on("/blob", answer(403, body=f"bad signature {HIDDEN} token={HIDDEN}".encode()[:13]))
    url = server.url.replace("http://", f"http://bob:{HIDDEN}@") + f"/?sig={HIDDEN}"

    with (
        pytest.raises(AuthenticationError) as caught,
        open_source(fetching.settings(url)) as source,
    ):
        source.stat("blob")

    assert server.requests[0].headers["authorization"] == BASIC
    assert server.requests[0].target == f"/blob?sig={HIDDEN}"
    shown = f"{caught.value.as_document()} {caught.value!r} {source.name} {caplog.text}"
    assert HIDDEN not in shown


def test_signature_in_a_query_reaches_the_server_as_it_was_given(
    server: HostileServer, fetching: Fetching
) -> None:
    """Nothing in a query is decoded, sorted or cleaned (EVE #5588)."""
    server.on("/a/b", resource(BODY))
    query = "sv=2020&sig=a%2Fb%2B%3D&sr=b&z=../x&a=//"

    with open_source(fetching.settings(f"{server.url}/a/?{query}")) as source:
        source.stat("/b?own=1")

    assert server.requests[0].target == f"/a/b?{query}&own=1"


@pytest.mark.parametrize(
    "settings",
    [
        SourceSettings(url="http://192.0.2.1/", credentials=BOB),
        SourceSettings(
            url="http://192.0.2.1/", transport=TransportSettings(headers={"X-Key": Secret("s")})
        ),
    ],
    ids=["password", "headers"],
)
def test_credentials_do_not_cross_a_network_in_clear(settings: SourceSettings) -> None:
    """Refused before anything is sent; the setting that allows it is named."""
    with open_source(settings) as source, pytest.raises(DeniedError, match="insecure"):
        source.stat("blob")


def test_redirect_from_https_to_http_is_refused(
    tls_server: HostileServer,
    server: HostileServer,
    fetching: Fetching,
    authority: trustme.CA,
) -> None:
    """Whoever asks for https gets nothing else."""
    tls_server.on("/blob", answer(302, {"Location": server.on("/blob", resource(BODY))}))

    with pytest.raises(SourceProtocolError, match="plain http"):
        fetching(SourceSettings(url=tls_server.url, transport=_trusting(authority)))

    assert server.requests == []


@pytest.mark.parametrize("seconds", ["7", "Tue, 25 Nov 2025 12:00:07 GMT"])
def test_pause_that_a_server_asks_for_is_kept(
    server: HostileServer, fetching: Fetching, seconds: str
) -> None:
    """In seconds, or as a date by the server's own clock."""
    server.on("/blob", answer(429, {"Retry-After": seconds, "Date": DATE}), resource(BODY))

    fetching(server.url)

    assert fetching.time.pauses == [7.0]


def test_pause_longer_than_allowed_ends_the_attempts(
    server: HostileServer, fetching: Fetching
) -> None:
    """The error says for how long."""
    server.on("/blob", answer(429, {"Retry-After": "86400"}))

    with pytest.raises(RateLimitedError, match="86400") as caught:
        fetching(server.url)

    assert caught.value.details["retry_after_seconds"] == 86400
    assert len(server.requests) == 1


def test_server_of_a_private_authority_is_trusted_by_its_certificate_only(
    tls_server: HostileServer, fetching: Fetching, authority: trustme.CA
) -> None:
    """With the CA given it works, without it nothing is sent."""
    tls_server.on("/blob", resource(BODY))
    with pytest.raises(UntrustedServerError):
        fetching(tls_server.url)
    assert tls_server.requests == []
    assert fetching.names() == []

    fetching(SourceSettings(url=tls_server.url, transport=_trusting(authority)))

    assert fetching.file.read_bytes() == BODY


def test_environment_changes_neither_trust_nor_credentials(
    tls_server: HostileServer,
    fetching: Fetching,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Bundles, proxies and netrc of the environment are not for us."""
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login eve password netrc")
    authority.cert_pem.write_to_path(home / "ca.pem")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(home / "ca.pem"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    tls_server.on("/blob", resource(BODY))

    with pytest.raises(UntrustedServerError):
        fetching(tls_server.url)
    fetching(SourceSettings(url=tls_server.url, transport=_trusting(authority)))

    assert "authorization" not in tls_server.requests[0].headers


def test_certificate_for_another_name_is_not_trusted(
    fetching: Fetching, authority: trustme.CA
) -> None:
    """The authority alone does not do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)
    with HostileServer(context) as server:
        server.on("/blob", resource(BODY))
        settings = SourceSettings(url=server.url, transport=_trusting(authority))

        with pytest.raises(UntrustedServerError):
            fetching(settings)

        insecure = replace(settings.transport, insecure=True)
        fetching(replace(settings, transport=insecure))

    assert fetching.file.read_bytes() == BODY


@pytest.mark.parametrize(
    "transport",
    [
        TransportSettings(ca_pem="nonsense"),
        TransportSettings(client_pem=(Secret(HIDDEN),)),
        TransportSettings(client_pem=(Secret(trustme.CA().cert_pem.bytes().decode()),)),
    ],
    ids=["authority", "client", "client-without-key"],
)
def test_certificate_that_is_none_is_a_configuration_error(transport: TransportSettings) -> None:
    """Said when the datastore is opened."""
    with pytest.raises(ConfigError, match="PEM") as caught:
        open_source(SourceSettings(url="https://host", transport=transport))

    assert HIDDEN not in str(caught.value)


def test_server_that_wants_to_know_its_clients_is_shown_a_certificate(
    fetching: Fetching, authority: trustme.CA
) -> None:
    """Without one it does not answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = Secret(authority.issue_cert("client").private_key_and_cert_chain_pem.bytes().decode())
    trusting = _trusting(authority)
    with HostileServer(context) as server:
        server.on("/blob", resource(BODY))
        with pytest.raises(SourceUnavailableError):
            fetching(SourceSettings(url=server.url, transport=trusting))
        assert server.requests == []

        known = replace(trusting, client_pem=(client,))
        fetching(decode_settings(encode_settings(SourceSettings(url=server.url, transport=known))))

    assert fetching.file.read_bytes() == BODY


def _tunnel(request: Request, line: Line) -> None:
    """Be a proxy for https."""
    host, _, port = request.target.rpartition(":")
    with socket.create_connection((host, int(port))) as far:
        line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        near = line.socket
        back = threading.Thread(target=_pump, args=(far, near))
        back.start()
        _pump(near, far)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_proxy_for_https_is_used_with_its_credentials(
    tls_server: HostileServer, server: HostileServer, fetching: Fetching, authority: trustme.CA
) -> None:
    """The proxy sees a tunnel and its own credentials, the server only its own."""
    tls_server.on("/blob", resource(BODY))
    server.on(f"127.0.0.1:{tls_server.port}", _tunnel)
    proxy = Secret(server.url.replace("http://", f"http://bob:{HIDDEN}@"))
    transport = replace(_trusting(authority), proxies=Proxies(https=proxy))

    fetching(SourceSettings(url=tls_server.url, transport=transport))

    assert server.requests[0].method == "CONNECT"
    assert server.requests[0].headers["proxy-authorization"] == BASIC
    assert "proxy-authorization" not in tls_server.requests[0].headers


def test_proxy_for_http_is_used_but_for_hosts_that_bypass_it(
    server: HostileServer, other_server: HostileServer, fetching: Fetching
) -> None:
    """As http_proxy and no_proxy say."""
    server.on("/blob", resource(BODY))
    proxies = Proxies(http=Secret(other_server.url), bypass="example.org")
    other_server.on(f"{server.url}/blob", resource(BODY))
    settings = fetching.settings(server.url)

    fetching(replace(settings, transport=replace(settings.transport, proxies=proxies)))
    assert len(other_server.requests) == 1

    fetching.file.unlink()
    for bypass in ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", "*"):
        direct = replace(proxies, bypass=bypass)
        fetching(replace(settings, transport=replace(settings.transport, proxies=direct)))
        fetching.file.unlink()
    assert len(other_server.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://host.invalid/"])
def test_host_that_cannot_be_reached_is_unavailable(url: str, fetching: Fetching) -> None:
    """Refused and unknown alike; nothing is left."""
    # One look for a name: where nobody answers to it each takes its time.
    fetching.policy = replace(fetching.policy, retry=RetryPolicy(attempts=1))
    with pytest.raises(SourceUnavailableError):
        fetching(url)

    assert fetching.names() == []


@pytest.mark.parametrize(
    "url", ["", "blob", "gopher://host", "http://", "http://[::1", "http://h:port", "file://h/x"]
)
def test_url_that_is_none_is_a_configuration_error(url: str) -> None:
    """Said at once, not at the first attempt."""
    with pytest.raises(ConfigError):
        open_source(SourceSettings(url=url))


def test_answer_of_any_size_to_a_failed_request_is_quoted_shortly(
    server: HostileServer, fetching: Fetching
) -> None:
    """A page instead of an object does not flood a log, or forge lines in it."""
    server.on("/blob", answer(400, {}, b"<html>\r\n" * 1_000_000))

    with pytest.raises(CasError) as caught:
        fetching(server.url)

    assert len(caught.value.message) < 1000
    assert "\n" not in caught.value.message


def test_memory_of_a_large_transfer_is_bounded(server: HostileServer, fetching: Fetching) -> None:
    """Chunks pass; they are not collected."""
    import tracemalloc

    part = bytes(2**20)

    def large(_: Request, line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * len(part)))
        for _n in range(64):
            line.send(part)

    server.on("/blob", large)
    tracemalloc.start()
    try:
        fetching(server.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert fetching.file.stat().st_size == 64 * len(part)
    assert peak < 8 * len(part)
