"""What the configuration says about the datastore of a file, its keys and passwords read.

By whoever has the rights to read them: the downloader's process is told, and reads none of it.
"""

__all__ = ["configured_settings"]

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cas.datastores.credential_helper import ask_helper
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, SourceSettings
from cas.errors import ConfigError
from cas.fsops.reading import regular_file
from cas.model.datastore_settings import DatastoreSettings
from cas.model.url_place import UrlPlace

_MAX_BYTES = 4 * 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HEADER = re.compile(
    r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[^\x00-\x08\x0a-\x1f]*)"
)


def configured_settings(
    settings: SourceSettings, url: str, datastores: Mapping[str, DatastoreSettings]
) -> SourceSettings:
    """Add what the table with the longest prefix of a file's URL says.

    A prefix ends where a name in the path does. Credentials that the settings have already are
    left as they are.

    Args:
        settings: Of the datastore of the file.
        url: Of the file; parsed before.
        datastores: By URL prefix.

    Raises:
        ConfigError: A file cannot be read, may be read by others, or does not parse; or a
            credential helper fails.
    """
    place = UrlPlace.of(url)
    fitting = [prefix for prefix in datastores if UrlPlace.of(prefix).holds(place)]
    if not fitting:
        return settings
    prefix = max(fitting, key=lambda each: len(UrlPlace.of(each).path))
    table = datastores[prefix]
    own = settings.credentials
    headers = {} if table.headers_file is None else _headers(table.headers_file)
    authorities = [settings.transport.ca_pem, _text(table.ca_file)]
    return replace(
        settings,
        credentials=_credentials(table, prefix) if own == Credentials() else own,
        transport=replace(
            settings.transport,
            ca_pem="\n".join(pem for pem in authorities if pem),
            headers={**settings.transport.headers, **headers},
        ),
        endpoint=table.endpoint,
        region=table.region,
        path_style=table.path_style,
        host_keys=_text(table.host_keys_file),
    )


def _credentials(table: DatastoreSettings, prefix: str) -> Credentials:
    if table.credential_helper:
        given = ask_helper(table.credential_helper, prefix)
    else:
        given = Credentials(password=_secret(table.password_file))
    return replace(
        given,
        username=table.username or given.username,
        identity_token=_secret(table.identity_token_file) or given.identity_token,
        private_key=_secret(table.private_key_file, lines=True),
    )


def _headers(path: Path) -> dict[str, Secret]:
    headers = {}
    for number, line in enumerate(_secret(path, lines=True).reveal().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _HEADER.fullmatch(line.strip())
        if match is None:
            message = f"line {number} of {path} is no header; write NAME: VALUE"
            raise ConfigError(message, path=path)
        headers[match["name"]] = Secret(match["value"])
    return headers


def _secret(path: Path | None, *, lines: bool = False) -> Secret:
    text = _text(path, secret=True)
    return Secret(text if lines else text.rstrip("\r\n"))


def _text(path: Path | None, *, secret: bool = False) -> str:
    if path is None:
        return ""
    try:
        with regular_file(path) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=path) from error
    if secret and mode & _OTHERS:
        message = f"{path} holds a secret and is open to others; run chmod go-rwx on it"
        raise ConfigError(message, path=path)
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than 4 MiB", path=path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text", path=path) from error
