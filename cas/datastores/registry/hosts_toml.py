"""Mirrors and trust of registries, from files in the manner of containerd's ``hosts.toml``.

For the command line and the service; what a confined process needs travels in its settings.

Source: containerd's documentation, ``hosts.md``.
"""

__all__ = ["with_hosts"]

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, Mirror, SourceSettings, TransportSettings
from cas.errors import ConfigError
from cas.fsops.reading import regular_file

_MAX_BYTES = 1024 * 1024
_DEFAULT = "_default"


class _HostTable(msgspec.Struct):
    capabilities: tuple[str, ...] = ("pull", "resolve", "push")
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    header: dict[str, str | list[str]] = {}
    override_path: bool = False


class _File(_HostTable):
    server: str = ""
    host: dict[str, _HostTable] = {}


def with_hosts(
    settings: SourceSettings,
    registry: str,
    directory: Path,
    credentials_for: Callable[[str], Credentials] = lambda _: Credentials(),
) -> SourceSettings:
    """Add what a directory says about a registry to its settings.

    Args:
        settings: Of the registry; its transport is the base of the mirrors' too.
        registry: Host, with port if any, as in references.
        directory: Has a directory per registry, or ``_default``, with a ``hosts.toml``; its
            absence is no error.
        credentials_for: Gives the credentials for the host of a mirror.

    Raises:
        ConfigError: A file cannot be read, does not parse, or asks for what is not supported.
    """
    found = _find(registry, directory)
    if found is None:
        return settings
    path, file = found
    mirrors = tuple(
        Mirror(
            url=_url(url),
            resolves="resolve" in table.capabilities,
            pulls="pull" in table.capabilities,
            override_path=table.override_path,
            credentials=credentials_for(_url(url).partition("://")[2].partition("/")[0]),
            transport=_transport(settings.transport, table, path),
        )
        for url, table in file.host.items()
    )
    server = _url(file.server).removesuffix("/v2") if file.server else settings.endpoint
    transport = _transport(settings.transport, file, path)
    return replace(settings, endpoint=server, transport=transport, mirrors=mirrors)


def _find(registry: str, directory: Path) -> tuple[Path, _File] | None:
    host, separator, port = registry.rpartition(":")
    names = [f"{host}_{port}_"] if separator and port.isdecimal() else []
    for name in [*names, registry, _DEFAULT]:
        path = directory / name / "hosts.toml"
        try:
            with regular_file(path) as stream:
                data = stream.read(_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", path=path) from error
        return path, _parse(path, data)
    return None


def _parse(path: Path, data: bytes) -> _File:
    try:
        file = msgspec.convert(tomllib.loads(data.decode()), _File)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} is wrong: {error}", path=path) from error
    return file


def _url(text: str) -> str:
    return (text if "://" in text else f"https://{text}").rstrip("/")


def _transport(base: TransportSettings, table: _HostTable, path: Path) -> TransportSettings:
    names = [table.ca] if isinstance(table.ca, str) else table.ca
    authorities = [base.ca_pem, *(_read(path.parent / name) for name in names)]
    headers = {
        name: Secret(value if isinstance(value, str) else ", ".join(value))
        for name, value in table.header.items()
    }
    return replace(
        base,
        ca_pem="\n".join(pem for pem in authorities if pem),
        client_pem=_client(table, path) or base.client_pem,
        insecure=base.insecure or table.skip_verify,
        headers={**base.headers, **headers},
    )


def _client(table: _HostTable, path: Path) -> tuple[Secret, ...]:
    """Read certificates, each with its key: in the same file, or in the second of a pair."""
    listed = [table.client] if isinstance(table.client, str) else table.client
    pairs = [[each] if isinstance(each, str) else each for each in listed]
    return tuple(
        Secret("\n".join(_read(path.parent / name) for name in pair if name)) for pair in pairs
    )


def _read(path: Path) -> str:
    try:
        with regular_file(path) as file:
            return file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the certificates {path} cannot be read", path=path) from error
