"""Credentials that ``docker login`` stored: in docker's configuration, or with a helper program.

For the command line and the service; what a confined process needs travels in its settings.

Source: docker's documentation of config.json.
"""

__all__ = ["stored_credentials"]

import base64
import binascii
from pathlib import Path

import msgspec

from cas.datastores.credential_helper import ask_helper
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials
from cas.errors import ConfigError
from cas.fsops.reading import regular_file

_MAX_BYTES = 1024 * 1024
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HUB_KEY = "https://index.docker.io/v1/"


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = msgspec.field(default="", name="identitytoken")


class _Config(msgspec.Struct):
    auths: dict[str, _Entry] | None = None
    helpers: dict[str, str] | None = msgspec.field(default=None, name="credHelpers")
    store: str = msgspec.field(default="", name="credsStore")


def stored_credentials(registry: str, config: Path) -> Credentials:
    """Give what is stored for a registry; empty credentials if nothing is.

    Args:
        registry: Host, with port if any, as in references.
        config: docker's ``config.json``; its absence is no error.

    Raises:
        ConfigError: It cannot be read or parsed, or a helper fails. The message quotes neither.
    """
    parsed = _read(config)
    for key, helper in (parsed.helpers or {}).items():
        if _is_for(key, registry):
            return ask_helper(helper, key)
    entries = parsed.auths or {}
    found = next((key for key in entries if _is_for(key, registry)), None)
    if parsed.store:
        return ask_helper(parsed.store, found or (_HUB_KEY if _is_hub(registry) else registry))
    return _from_entry(entries[found], config) if found is not None else Credentials()


def _read(path: Path) -> _Config:
    try:
        with regular_file(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return _Config()
    except OSError as error:
        message = f"docker's configuration {path} cannot be read: {error.strerror}"
        raise ConfigError(message, path=path) from error
    try:
        return msgspec.json.decode(data, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"docker's configuration {path} does not parse; `docker login` writes it"
        raise ConfigError(message, path=path) from error


def _is_for(key: str, registry: str) -> bool:
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return host == registry or (_is_hub(host) and _is_hub(registry))


def _is_hub(host: str) -> bool:
    return host in _DOCKER_HUB


def _from_entry(entry: _Entry, config: Path) -> Credentials:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            pair = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            message = f"docker's configuration {config} has an auth that does not decode"
            raise ConfigError(message, path=config) from error
        username, _, password = pair.rstrip("\0").partition(":")
    return _credentials(username, password, entry.identity_token)


def _credentials(username: str, password: str, identity_token: str) -> Credentials:
    return Credentials(
        username=username, password=Secret(password), identity_token=Secret(identity_token)
    )
