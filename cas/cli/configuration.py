"""Settings from the configuration file, overridden by environment and options."""

__all__ = ["DEFAULT_CONFIG", "load_settings"]

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from cas.errors import ConfigError
from cas.model.limits import Limits
from cas.model.settings import Settings

DEFAULT_CONFIG = Path("/etc/cas/config.toml")
_MAX_CONFIG_BYTES = 1024 * 1024


class _LimitsTable(msgspec.Struct, forbid_unknown_fields=True):
    document_bytes: int | None = None
    index_depth: int | None = None
    descriptors: int | None = None
    layers: int | None = None
    archive_members: int | None = None
    blob_bytes: int | None = None
    layer_expansion: int | None = None
    layer_expansion_floor_bytes: int | None = None
    min_free_bytes: int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    persist: str | None = None
    address: str | None = None
    namespace: str | None = None
    snapshotter: str | None = None
    containerd_binary: str | None = None
    workers: int | None = None
    wait_seconds: float | None = None
    require_encryption: bool | None = None
    owners: dict[str, str] = {}
    limits: _LimitsTable = msgspec.field(default_factory=_LimitsTable)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"configuration file {path} cannot be read: {error.strerror}", path=path
        ) from error
    if len(raw) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"configuration file {path} is larger than 1 MiB", path=path)
    try:
        return msgspec.convert(tomllib.loads(raw.decode()), _File)
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


def load_settings(
    config: Path | None,
    *,
    persist: Path | None = None,
    address: Path | None = None,
    namespace: str | None = None,
) -> Settings:
    """Merge the configuration file with what the command line and the environment said.

    Args:
        config: The file; None means :data:`DEFAULT_CONFIG` where that exists.
        persist: Overrides the file.
        address: Overrides the file.
        namespace: Overrides the file.

    Raises:
        ConfigError: The file cannot be read, is not TOML, has an unknown key or a wrong type, or
            a path is not absolute.
    """
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    file = _read(path) if path is not None else _File()
    defaults = Settings()
    chosen: dict[str, Any] = {
        name: getattr(file, name)
        for name in (
            "namespace",
            "snapshotter",
            "containerd_binary",
            "workers",
            "wait_seconds",
            "require_encryption",
        )
        if getattr(file, name) is not None
    }
    limits = {
        key: value
        for key, value in msgspec.structs.asdict(file.limits).items()
        if value is not None
    }
    unknown = sorted(set(file.owners) - set(defaults.owners))
    if unknown:
        raise ConfigError(
            f"owners has no role {unknown[0]!r}; the roles are {', '.join(sorted(defaults.owners))}"
        )
    chosen["owners"] = {**defaults.owners, **file.owners}
    chosen["limits"] = Limits(**limits)
    if persist is not None or file.persist is not None:
        chosen["persist"] = _absolute(persist or file.persist or "", "persist")
    if address is not None or file.address is not None:
        text = str(address or file.address).removeprefix("unix://")
        chosen["address"] = _absolute(text, "address")
    if namespace is not None:
        chosen["namespace"] = namespace
    if chosen.get("workers", 1) < 1:
        raise ConfigError(f"workers is {chosen['workers']}; at least 1 is needed")
    return Settings(**chosen)
