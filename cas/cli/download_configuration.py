"""Settings of downloads from the configuration file and the environment."""

__all__ = ["DownloadTable", "download_settings"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cas.cli.datastore_configuration import datastore_settings
from cas.errors import ConfigError
from cas.model.download_settings import DownloadSettings

_AT_LEAST_ONE = ("parallel", "digest_attempts", "attempts", "sync_bytes")
_PATHS = ("hosts_directory", "docker_config", "ca_file", "signature_policy")


class DownloadTable(msgspec.Struct, forbid_unknown_fields=True):
    """The table ``[download]``; None leaves a value as it is."""

    parallel: int | None = None
    digest_attempts: int | None = None
    attempts: int | None = None
    sync_bytes: int | None = None
    connect_seconds: float | None = None
    idle_seconds: float | None = None
    stall_seconds: float | None = None
    hosts_directory: str | None = None
    docker_config: str | None = None
    ca_file: str | None = None
    signature_policy: str | None = None


def download_settings(
    table: DownloadTable, datastores: Mapping[str, dict[str, Any]]
) -> DownloadSettings:
    """Merge the tables with what the environment says of proxies and of docker's configuration.

    Args:
        table: ``[download]``.
        datastores: ``[datastore."URL"]``, by URL.

    Raises:
        ConfigError: A number is too small, a path is not absolute, or a datastore is none.
    """
    given: dict[str, Any] = {
        key: value for key, value in msgspec.structs.asdict(table).items() if value is not None
    }
    for key in _AT_LEAST_ONE:
        if given.get(key, 1) < 1:
            raise ConfigError(f"download.{key} is {given[key]}; at least 1 is needed")
    for key in _PATHS:
        if key in given:
            given[key] = _absolute(given[key], key)
    given.setdefault("docker_config", _docker_config())
    return DownloadSettings(
        **given,
        http_proxy=_variable("http_proxy"),
        https_proxy=_variable("https_proxy"),
        no_proxy=_variable("no_proxy"),
        datastores=datastore_settings(datastores),
    )


def _absolute(text: str, key: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigError(f"download.{key} {text!r} is not an absolute path; begin it with /")
    return path


def _docker_config() -> Path | None:
    directory = os.environ.get("DOCKER_CONFIG")
    home = os.environ.get("HOME")
    if directory:
        return Path(directory) / "config.json"
    return Path(home) / ".docker" / "config.json" if home else None


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""
