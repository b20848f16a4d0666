"""Settings from the configuration file, overridden by environment and options."""

__all__ = ["DEFAULT_CONFIG", "load_settings"]

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from cas.cli.download_configuration import DownloadTable, download_settings
from cas.errors import ConfigError
from cas.model.configuration_keys import require_known_keys
from cas.model.limits import Limits
from cas.model.pcrs import check_pcrs
from cas.model.settings import ServiceUse, Settings
from cas.model.vault_settings import ProviderName, VaultSettings

DEFAULT_CONFIG = Path("/etc/cas/config.toml")
_MAX_CONFIG_BYTES = 1024 * 1024
_PLAIN = (
    "namespace",
    "snapshotter",
    "containerd_binary",
    "qemu_img_binary",
    "workers",
    "wait_seconds",
    "require_encryption",
    "require_confinement",
    "service",
    "metrics_address",
    "stop_seconds",
)
"""Keys that are settings as they stand."""


class _LimitsTable(msgspec.Struct, forbid_unknown_fields=True):
    document_bytes: int | None = None
    index_depth: int | None = None
    descriptors: int | None = None
    layers: int | None = None
    archive_members: int | None = None
    blob_bytes: int | None = None
    layer_expansion: int | None = None
    layer_expansion_floor_bytes: int | None = None
    disk_bytes: int | None = None
    thin_disks: bool | None = None
    verify_disks: bool | None = None
    min_free_bytes: int | None = None


class _VaultTable(msgspec.Struct, forbid_unknown_fields=True):
    provider: ProviderName | None = None
    unsealed_provider: ProviderName | None = None
    pcrs: list[int] | None = None
    tcti: str | None = None
    key_file: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    persist: str | None = None
    address: str | None = None
    namespace: str | None = None
    snapshotter: str | None = None
    containerd_binary: str | None = None
    qemu_img_binary: str | None = None
    workers: int | None = None
    wait_seconds: float | None = None
    require_encryption: bool | None = None
    require_confinement: bool | None = None
    service: ServiceUse | None = None
    service_address: str | None = None
    allowed_directories: list[str] = []
    metrics_address: str | None = None
    stop_seconds: float | None = None
    owners: dict[str, str] = {}
    limits: _LimitsTable = msgspec.field(default_factory=_LimitsTable)
    vault: _VaultTable = msgspec.field(default_factory=_VaultTable)
    download: DownloadTable = msgspec.field(default_factory=DownloadTable)
    datastore: dict[str, dict[str, Any]] = {}


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"configuration file {path} cannot be read: {error.strerror}; name another by --config "
            "or CAS_CONFIG, or leave both out",
            path=path,
        ) from error
    if len(raw) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"configuration file {path} is larger than 1 MiB", path=path)
    try:
        tables = tomllib.loads(raw.decode())
        require_known_keys(tables, _File, f"configuration file {path}")
        return msgspec.convert(tables, _File)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"configuration file {path} is wrong: {error}", path=path) from error


def _absolute(value: str | Path, name: str) -> Path:
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"{name} {str(path)!r} is not an absolute path without '..'; begin it with /",
            value=path,
        )
    return path


def _socket(value: str | Path, name: str) -> Path:
    return _absolute(str(value).removeprefix("unix://"), name)


def _plain_values(file: _File) -> dict[str, Any]:
    return {name: value for name in _PLAIN if (value := getattr(file, name)) is not None}


def _owners(file: _File) -> dict[str, str]:
    defaults = Settings().owners
    unknown = sorted(set(file.owners) - set(defaults))
    if unknown:
        raise ConfigError(
            f"owners has no role {unknown[0]!r}; the roles are {', '.join(sorted(defaults))}"
        )
    return {**defaults, **file.owners}


def _limits(file: _File) -> Limits:
    given = msgspec.structs.asdict(file.limits)
    return Limits(**{key: value for key, value in given.items() if value is not None})


def _vault(table: _VaultTable) -> VaultSettings:
    given = {
        key: value for key, value in msgspec.structs.asdict(table).items() if value is not None
    }
    if table.pcrs is not None:
        given["pcrs"] = check_pcrs(table.pcrs)
    if table.key_file is not None:
        given["key_file"] = _absolute(table.key_file, "key_file")
    return VaultSettings(**given)


def load_settings(
    config: Path | None,
    *,
    persist: Path | None = None,
    address: Path | None = None,
    namespace: str | None = None,
    service: ServiceUse | None = None,
    service_address: Path | None = None,
) -> Settings:
    """Merge the configuration file with what the command line and the environment said.

    Args:
        config: The file; None means :data:`DEFAULT_CONFIG` where that exists.
        persist: Overrides the file.
        address: Overrides the file.
        namespace: Overrides the file.
        service: Overrides the file.
        service_address: Overrides the file.

    Raises:
        ConfigError: The file cannot be read, is not TOML, has an unknown key or a wrong type, or
            a path is not absolute.
    """
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    file = _read(path) if path is not None else _File()
    chosen = _plain_values(file)
    chosen["owners"] = _owners(file)
    chosen["limits"] = _limits(file)
    chosen["vault"] = _vault(file.vault)
    chosen["download"] = download_settings(file.download, file.datastore)
    if (directory := persist or file.persist) is not None:
        chosen["persist"] = _absolute(directory, "persist")
    if (socket := address or file.address) is not None:
        chosen["address"] = _socket(socket, "address")
    if (socket := service_address or file.service_address) is not None:
        chosen["service_address"] = _socket(socket, "service_address")
    chosen["allowed_directories"] = tuple(
        _absolute(directory, "allowed_directories") for directory in file.allowed_directories
    )
    if namespace is not None:
        chosen["namespace"] = namespace
    if service is not None:
        chosen["service"] = service
    if chosen.get("workers", 1) < 1:
        raise ConfigError(f"workers is {chosen['workers']}; at least 1 is needed")
    if chosen.get("stop_seconds", 0) < 0:
        raise ConfigError(f"stop_seconds is {chosen['stop_seconds']}; at least 0 is needed")
    return Settings(**chosen)
