"""What is particular to one kind of datastore."""

import json
import sys
from dataclasses import replace

import pytest
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cas.datastores.opening import open_source
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, SourceSettings, TransportSettings
from cas.errors import (
    AuthenticationError,
    ConfigError,
    LimitExceededError,
    SourceLibraryMissingError,
    SourceProtocolError,
    SourceUnavailableError,
    UntrustedServerError,
)
from tests.support.datastores import Datastore
from tests.support.fetching import BODY, Fetching
from tests.support.hostile_server import DATE, Behaviour, HostileServer, answer, resource


def test_ssh_server_with_an_unknown_host_key_is_not_trusted(
    sftp_store: Datastore, fetching: Fetching
) -> None:
    """Unless the settings say that any will do."""
    unknown = replace(sftp_store.settings, host_keys="")
    with pytest.raises(UntrustedServerError, match="SHA256"):
        fetching(unknown, path=sftp_store.path)

    fetching(replace(unknown, transport=TransportSettings(insecure=True)), path=sftp_store.path)

    assert fetching.file.read_bytes() == BODY


def test_ssh_server_with_another_host_key_is_not_trusted(
    sftp_store: Datastore, fetching: Fetching
) -> None:
    """Not even then."""
    host, kind, key = sftp_store.settings.host_keys.split()
    other = key[:-8] + key[-8:].swapcase()
    settings = replace(sftp_store.settings, host_keys=f"{host} {kind} {other}")

    with pytest.raises(UntrustedServerError):
        fetching(settings, path=sftp_store.path)

    assert fetching.names() == []


@pytest.mark.parametrize("keys", ["nonsense", "host ssh-ed25519", "host ssh-ed25519 !!!"])
def test_host_keys_that_do_not_parse_are_a_configuration_error(
    sftp_store: Datastore, keys: str
) -> None:
    """A line that is passed over would be trust that is not there."""
    with pytest.raises(ConfigError, match="line 2"):
        open_source(replace(sftp_store.settings, host_keys=f"# mine\n{keys}"))


def test_private_key_that_does_not_parse_is_not_quoted(sftp_store: Datastore) -> None:
    """It may be a good one in the wrong form."""
    credentials = Credentials(private_key=Secret("hunter2"))

    with pytest.raises(ConfigError) as caught:
        open_source(replace(sftp_store.settings, credentials=credentials))

    assert "hunter2" not in str(caught.value)


def test_azure_url_with_a_signature_needs_no_library(
    azure_store: Datastore, fetching: Fetching
) -> None:
    """It is a web download."""
    signature = generate_blob_sas(
        "devstoreaccount1",
        "tests",
        "team/blob one",
        account_key=azure_store.settings.credentials.password.reveal(),
        permission=BlobSasPermissions(read=True),
        expiry="2099-01-01",
    )
    settings = SourceSettings(url=f"{azure_store.settings.endpoint}/tests/team?{signature}")

    fetching(settings, path="blob%20one", size=len(BODY))

    assert fetching.file.read_bytes() == BODY


def test_azure_signature_counts_by_the_servers_clock(server: HostileServer) -> None:
    """A device whose clock is wrong at boot can download all the same."""
    server.on("/account", answer(400, {"Date": DATE}))
    server.on("/account/c/blob", resource(BODY))
    settings = SourceSettings(
        url="azure://account/c",
        endpoint=f"{server.url}/account",
        credentials=Credentials(password=Secret("a2V5")),
    )

    with open_source(settings) as source:
        source.stat("blob")
        source.stat("blob")

    assert "se=2025-11-25T13%3A00%3A0" in server.requests[-1].target
    assert len(server.asked("/account")) == 1


def _service_account(token_url: str) -> Secret:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    account = {"type": "service_account", "private_key": pem, "client_email": "a@b",
               "token_uri": token_url}  # fmt: skip
    return Secret(json.dumps(account))


def _metadata(server: HostileServer) -> None:
    document = {"size": str(len(BODY)), "generation": "7", "contentType": "x/y"}
    server.on("/storage/v1/b/bucket/o/a%2Fb", answer(200, body=json.dumps(document).encode()))
    server.on("/download/storage/v1/b/bucket/o/a%2Fb", resource(BODY, etag=None))


def test_google_service_account_gets_one_token_for_all_requests(
    server: HostileServer, fetching: Fetching
) -> None:
    """Signed by its key, and sent with each request."""
    _metadata(server)
    token = {"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"}
    url = server.on("/token", answer(200, body=json.dumps(token).encode()))
    settings = SourceSettings(
        url="gs://bucket",
        endpoint=server.url,
        credentials=Credentials(password=_service_account(url)),
    )

    fetching(settings, path="a/b")

    assert fetching.file.read_bytes() == BODY
    assert len(server.asked("/token")) == 1
    for request in server.requests[1:]:
        assert request.headers["authorization"] == "Bearer t0ken"
    assert server.requests[-1].target.endswith("?alt=media&generation=7")


@pytest.mark.parametrize(
    ("reachable", "error"), [(True, AuthenticationError), (False, SourceUnavailableError)]
)
def test_google_service_account_without_a_token_is_a_documented_error(
    server: HostileServer, reachable: bool, error: type[Exception]
) -> None:
    """Refused and unreachable are told apart."""
    url = server.on("/token", answer(401, body=b'{"error":"invalid_grant"}'))
    account = _service_account(url if reachable else "http://127.0.0.1:1/token")
    settings = SourceSettings(
        url="gs://bucket", endpoint=server.url, credentials=Credentials(password=account)
    )

    with open_source(settings) as source, pytest.raises(error):
        source.stat("a/b")


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (answer(200, {"Content-Length": str(2**40)}, b" " * 2**20), LimitExceededError),
        (answer(200, body=b"[" * 100_000), SourceProtocolError),
        (answer(200, body=b"no json"), SourceProtocolError),
        (answer(200, body=b'{"access_token": "t", "expires_in": 1e99}'), SourceProtocolError),
        (answer(200, body=b"\xff"), SourceProtocolError),
    ],
    ids=["without-end", "nested", "text", "for-ever", "no-text"],
)
def test_google_token_that_is_none_is_a_documented_error(
    server: HostileServer, token: Behaviour, error: type[Exception]
) -> None:
    """And no more of it is kept in memory than a token can have."""
    account = _service_account(server.on("/token", token))
    settings = SourceSettings(
        url="gs://bucket", endpoint=server.url, credentials=Credentials(password=account)
    )

    with open_source(settings) as source, pytest.raises(error):
        source.stat("a/b")


@pytest.mark.parametrize(
    "settings",
    [
        SourceSettings(url="s3://"),
        SourceSettings(url="gs://"),
        SourceSettings(url="azure://account"),
        SourceSettings(url="azure:///container"),
        SourceSettings(url="sftp:///path"),
        SourceSettings(url="docker://"),
        SourceSettings(url="gs://b", credentials=Credentials(password=Secret("hunter2"))),
        SourceSettings(url="gs://b", credentials=Credentials(password=Secret('{"a":"b"}'))),
    ],
    ids=str,
)
def test_settings_that_lack_something_are_a_configuration_error(settings: SourceSettings) -> None:
    """Said when the datastore is opened, without secrets."""
    with pytest.raises(ConfigError) as caught:
        open_source(settings)

    assert "hunter2" not in str(caught.value)


def test_azure_account_key_that_does_not_parse_is_a_configuration_error(
    server: HostileServer,
) -> None:
    """Said at the first use."""
    server.on("/account", answer(400))
    settings = SourceSettings(
        url="azure://account/c",
        endpoint=f"{server.url}/account",
        credentials=Credentials(password=Secret("hunter2!")),
    )

    with open_source(settings) as source, pytest.raises(ConfigError) as caught:
        source.stat("blob")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "library", "extra"),
    [
        ("s3://b", "s3", "botocore.auth", "s3"),
        ("azure://a/c", "azure", "azure.storage.blob", "azure"),
        ("gs://b", "gcs", "google.oauth2", "gcs"),
        ("sftp://h", "sftp", "paramiko", "sftp"),
    ],
)
def test_kind_whose_library_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, library: str, extra: str
) -> None:
    """An extra of the package, by its name."""
    for name in (f"cas.datastores.{module}", "cas.datastores.google_account"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(SourceLibraryMissingError, match=rf"eve-cas\[{extra}\]"):
        open_source(SourceSettings(url=url))


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (SourceSettings(url="s3://bucket/p"), "https://bucket.s3.us-east-1.amazonaws.com/p/a%20b"),
        (SourceSettings(url="s3://with.dots", region="eu-1"),
         "https://s3.eu-1.amazonaws.com/with.dots/a%20b"),
        (SourceSettings(url="s3://bucket", endpoint="http://h:1/"), "http://h:1/bucket/a%20b"),
    ],
)  # fmt: skip
def test_s3_object_has_the_url_that_its_server_wants(settings: SourceSettings, url: str) -> None:
    """Unsigned without credentials, by host name where a certificate covers it."""
    from cas.datastores.s3 import open_s3

    with open_s3(settings) as source:
        assert source._address("GET", "a b") == url
