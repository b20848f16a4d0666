"""Credentials that docker login stored."""

import base64
import json
import stat
from pathlib import Path

import pytest

from cas.datastores.registry.docker_config import stored_credentials
from cas.errors import ConfigError

AUTH = base64.b64encode(b"bob:pass:word").decode()


def _write(directory: Path, document: object) -> Path:
    path = directory / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _helper(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "docker-credential-tests"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example/v2/", "registry.example"),
        ("http://registry.example", "registry.example"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_stored_password_is_found_by_the_registry(tmp_path: Path, key: str, registry: str) -> None:
    """However docker wrote the key."""
    config = _write(tmp_path, {"auths": {key: {"auth": AUTH}}, "HttpHeaders": {}})

    credentials = stored_credentials(registry, config)

    assert (credentials.username, credentials.password.reveal()) == ("bob", "pass:word")


@pytest.mark.parametrize("other", ["registry.example:5001", "evil.registry.example", "example"])
def test_stored_password_is_for_its_registry_only(tmp_path: Path, other: str) -> None:
    """Neither port nor domain is near enough."""
    config = _write(tmp_path, {"auths": {"registry.example:5000": {"auth": AUTH}}})

    assert not stored_credentials(other, config).username


def test_identity_token_is_found(tmp_path: Path) -> None:
    """As some registries have docker store it."""
    entry = {"auth": base64.b64encode(b"bob:").decode(), "identitytoken": "refresh"}
    config = _write(tmp_path, {"auths": {"r.example": entry}})

    assert stored_credentials("r.example", config).identity_token.reveal() == "refresh"


def test_configuration_that_does_not_exist_has_nothing(tmp_path: Path) -> None:
    """Most machines have none."""
    assert not stored_credentials("r.example", tmp_path / "absent").username


@pytest.mark.parametrize(
    "document", ["", "[]", '{"auths": 1}', "{", "\xff", {"auths": {"r": {"auth": "!"}}}]
)
def test_configuration_that_does_not_parse_is_an_error_without_a_quote(
    tmp_path: Path, document: object
) -> None:
    """There may be a password in it."""
    with pytest.raises(ConfigError):
        stored_credentials("r", _write(tmp_path, document))


@pytest.mark.parametrize(
    "settings", [{"credsStore": "tests"}, {"credHelpers": {"r.example": "tests"}}]
)
def test_helper_is_asked_for_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    """One for all registries, or one for this."""
    _helper(
        tmp_path,
        'read host; [ "$1 $host" = "get r.example" ] || exit 3\n'
        """echo '{"ServerURL":"r.example","Username":"bob","Secret":"word"}'""",
        monkeypatch,
    )

    credentials = stored_credentials("r.example", _write(tmp_path, settings))

    assert (credentials.username, credentials.password.reveal()) == ("bob", "word")


def test_helper_that_has_a_token_gives_an_identity_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protocol's user for that is <token>."""
    _helper(tmp_path, """echo '{"Username":"<token>","Secret":"refresh"}'""", monkeypatch)

    credentials = stored_credentials("r.example", _write(tmp_path, {"credsStore": "tests"}))

    assert credentials.identity_token.reveal() == "refresh"
    assert not credentials.username


def test_helper_that_knows_nothing_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anonymous access may do."""
    script = "echo 'credentials not found in native keychain'; exit 1"
    _helper(tmp_path, script, monkeypatch)

    assert not stored_credentials("r", _write(tmp_path, {"credsStore": "tests"})).username


@pytest.mark.parametrize("script", ["echo locked; exit 1", "echo hello", "exit 0"])
def test_helper_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """A locked keychain is not an empty one."""
    _helper(tmp_path, script, monkeypatch)

    with pytest.raises(ConfigError, match="docker-credential-tests"):
        stored_credentials("r", _write(tmp_path, {"credsStore": "tests"}))


@pytest.mark.parametrize("name", ["absent", "../evil", "a b", "-x"])
def test_helper_that_cannot_be_run_is_an_error(tmp_path: Path, name: str) -> None:
    """A name that is none is not even looked for."""
    with pytest.raises(ConfigError):
        stored_credentials("r", _write(tmp_path, {"credsStore": name}))
