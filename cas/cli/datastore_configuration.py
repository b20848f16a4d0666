"""The tables ``[datastore."URL"]`` of the configuration file."""

__all__ = ["datastore_settings"]

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cas.errors import ConfigError
from cas.model.datastore_settings import DatastoreSettings
from cas.model.url_place import UrlPlace

_PASSWORD = frozenset({"username", "password_file", "credential_helper"})
_CLOUD = _PASSWORD | {"endpoint", "ca_file"}
_KEYS: Mapping[str, frozenset[str]] = {
    "http": _PASSWORD | {"headers_file", "ca_file"},
    "https": _PASSWORD | {"headers_file", "ca_file"},
    "s3": _CLOUD | {"identity_token_file", "region", "path_style"},
    "azure": _CLOUD,
    "gs": _CLOUD,
    "sftp": _PASSWORD | {"private_key_file", "host_keys_file"},
}
_FILES = tuple(each.name for each in fields(DatastoreSettings) if each.name.endswith("_file"))


def datastore_settings(tables: Mapping[str, dict[str, Any]]) -> dict[str, DatastoreSettings]:
    """Read the tables; gives them by the URL prefix that each is for.

    Raises:
        ConfigError: A prefix is no URL of a datastore that has settings, or a table has a key
            that its kind of datastore does not have, or a value that makes no sense; or two
            prefixes mean the same.
    """
    read = {prefix: _settings(prefix, table) for prefix, table in tables.items()}
    named: dict[UrlPlace, str] = {}
    for prefix in read:
        other = named.setdefault(UrlPlace.of(prefix), prefix)
        if other != prefix:
            message = f"datastores {other!r} and {prefix!r} are the same place; leave one table"
            raise ConfigError(message)
    return read


def _settings(prefix: str, table: dict[str, Any]) -> DatastoreSettings:
    known = _KEYS[_scheme(prefix)]
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"datastore {prefix!r} has no key {unknown[0]!r}; the keys of its kind are "
            f"{', '.join(sorted(known))}"
        )
    if {"password_file", "credential_helper"} <= set(table):
        message = f"datastore {prefix!r} has both password_file and credential_helper; leave one"
        raise ConfigError(message)
    for key in set(_FILES) & set(table):
        if not str(table[key]).startswith("/"):
            raise ConfigError(
                f"datastore {prefix!r}: {key} {table[key]!r} is not an absolute path; begin it "
                "with /"
            )
    try:
        return msgspec.convert(table, DatastoreSettings, dec_hook=lambda _, value: Path(value))
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"datastore {prefix!r} is wrong: {error}") from error


def _scheme(prefix: str) -> str:
    try:
        parts = urlsplit(prefix)
        _ = parts.port  # parsed only when asked for
    except ValueError as error:
        raise ConfigError("a datastore of the configuration is named by no URL") from error
    if parts.scheme not in _KEYS or not parts.hostname:
        raise ConfigError(
            f"datastore {parts.scheme}://{parts.hostname or ''} has no settings of its own; name "
            f"one by a URL of {', '.join(sorted(_KEYS))} (registries are set up by hosts_directory "
            "and docker_config)"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"datastore {parts.scheme}://{parts.hostname} is named with user, query or fragment; "
            "leave them out, and give the user as username"
        )
    return parts.scheme
