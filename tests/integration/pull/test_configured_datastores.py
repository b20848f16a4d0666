"""``cas download`` from servers that nobody here wrote, by what the configuration says of them."""

import json
from pathlib import Path

import pytest

from cas.app import Case
from cas.datastores.settings import SourceSettings
from cas.model.digest import Digest
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas
from tests.support.datastores import Datastore
from tests.support.fetching import BODY
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, Request, answer, resource

DIGEST = Digest.of(BODY)
STORES = ("https_store", "s3_store", "azure_store", "gcs_store", "sftp_store")
REFUSED = ("https_store", "azure_store", "sftp_store")


def write_table(directory: Path, config: Path, settings: SourceSettings, prefix: str) -> None:
    """Say in a configuration file, and in files of root's, what the settings say."""
    credentials = settings.credentials
    secrets = {
        "password_file": credentials.password.reveal(),
        "private_key_file": credentials.private_key.reveal(),
        "host_keys_file": settings.host_keys,
        "ca_file": settings.transport.ca_pem,
    }
    table = {"username": credentials.username, "endpoint": settings.endpoint}
    table["region"] = settings.region
    for key, text in secrets.items():
        if text:
            path = directory / key
            path.write_text(text)
            path.chmod(0o600)
            table[key] = str(path)
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items() if value]
    with config.open("a") as stream:
        stream.write(f"[datastore.{json.dumps(prefix)}]\n{''.join(lines)}")


@pytest.fixture
def cas(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cas:
    """The command, with a configuration file that tests add to."""
    return Cas(case.settings, tmp_path, capsys)


@pytest.mark.parametrize("kind", STORES)
def test_download_uses_what_the_configuration_says_of_a_datastore(
    kind: str, cas: Cas, case: Case, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Endpoint, region, keys, authorities and credentials, none of them on the command line."""
    store: Datastore = request.getfixturevalue(kind)
    prefix = store.settings.url.replace("root@", "")
    write_table(tmp_path, tmp_path / "cas.toml", store.settings, prefix)

    result = cas("download", f"{store.settings.url}/{store.path}", "--digest", DIGEST)

    assert (result.status, result.out) == (0, f"{DIGEST}\n"), result
    assert b"".join(case.blobs.read(DIGEST)) == BODY
    assert left_by(case) == NOTHING


@pytest.mark.parametrize("kind", REFUSED)
def test_download_with_credentials_that_are_refused_is_denied(
    kind: str, cas: Cas, case: Case, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In words for people, without the secret, and nothing is left."""
    store: Datastore = request.getfixturevalue(kind)
    assert store.refused is not None
    prefix = store.settings.url.replace("root@", "")
    write_table(tmp_path, tmp_path / "cas.toml", store.refused, prefix)

    result = cas("download", f"{store.settings.url}/{store.path}", "--digest", DIGEST)

    result.assert_orderly(9)
    assert "[authentication-refused]" in result.err
    assert not case.blobs.exists(DIGEST)
    assert left_by(case) == NOTHING


def test_download_with_an_unknown_host_key_is_not_trusted(
    cas: Cas, case: Case, sftp_store: Datastore
) -> None:
    """Nothing is sent to a server of which nothing is known."""
    result = cas("download", f"{sftp_store.settings.url}/blob one", "--digest", DIGEST)

    result.assert_orderly(8)
    assert "[server-untrusted]" in result.err
    assert left_by(case) == NOTHING


def test_download_asks_a_helper_for_the_password_and_sends_headers_of_a_file(
    cas: Cas,
    case: Case,
    tmp_path: Path,
    registry: HostileRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the files below the prefix, and for no others of that server."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread key\necho "{\\"Username\\":\\"$key\\",\\"Secret\\":\\"s\\"}"\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "headers").write_text("X-Key: hunter2\n")
    (tmp_path / "headers").chmod(0o600)
    with (tmp_path / "cas.toml").open("a") as stream:
        stream.write(
            f'[datastore."{registry.url}/a"]\ncredential_helper = "test"\n'
            f'headers_file = "{tmp_path}/headers"\n'
        )

    def guarded(request: Request, line: Line) -> None:
        known = "authorization" in request.headers and request.headers["x-key"] == "hunter2"
        (resource(BODY) if known else answer(401))(request, line)

    url = registry.on("/a/disk", guarded)

    assert cas("download", url, "--digest", DIGEST).status == 0
    cas("download", registry.on("/b/disk", guarded), "--digest", Digest.of(b"x")).assert_orderly(9)
    assert left_by(case) == NOTHING
