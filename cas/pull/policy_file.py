"""Reads the signature policy of a device, and the keys that it names."""

__all__ = ["load_policy"]

import os
import stat
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from cas.errors import ConfigError, InvalidNameError
from cas.fsops.reading import regular_file
from cas.model.configuration_keys import require_known_keys
from cas.model.policy_pattern import check_identity, check_pattern
from cas.model.signature_policy import PublicKey, Requirement, Rule, SignaturePolicy

_MAX_BYTES = 1024 * 1024
_TRUSTED = 0
"""Root, the one who may say what is trusted."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True):
    match: str
    require: Requirement
    keys: list[str] = []
    identity: str = ""


class _PolicyFile(msgspec.Struct, forbid_unknown_fields=True):
    default: Literal["open", "closed"] = "open"
    rule: list[_RuleTable] = []


def load_policy(path: Path) -> SignaturePolicy:
    """Read a policy file.

    Relative paths of keys begin at the policy's own directory.

    Raises:
        ConfigError: The file, or a key that it names, cannot be read, has an unknown entry, or may
            be written by others than root; or a rule asks for signatures and names no key, or
            has a pattern that no name can match.
    """
    try:
        tables = tomllib.loads(_read(path))
        require_known_keys(tables, _PolicyFile, f"signature policy {path}")
        file = msgspec.convert(tables, _PolicyFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"signature policy {path} is wrong: {error}", path=path) from error
    default = Requirement.NOTHING if file.default == "open" else Requirement.REFUSE
    return SignaturePolicy(tuple(_rule(table, path) for table in file.rule), default)


def _rule(table: _RuleTable, path: Path) -> Rule:
    try:
        check_pattern(table.match)
        check_identity(table.identity)
    except InvalidNameError as error:
        message = f"signature policy {path} is wrong: {error.message}"
        raise ConfigError(message, path=path, rule=table.match) from error
    signed = table.require in (Requirement.COSIGN, Requirement.DETACHED)
    if signed != bool(table.keys):
        raise ConfigError(
            f"signature policy {path} is wrong: the rule for {table.match!r} requires "
            f"{table.require} and names {len(table.keys)} keys",
            path=path,
            rule=table.match,
        )
    keys = tuple(PublicKey(name, _read(path.parent / name)) for name in table.keys)
    return Rule(table.match, table.require, keys, table.identity)


def _read(path: Path) -> str:
    try:
        with regular_file(path) as stream:
            status = os.fstat(stream.fileno())
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=path) from error
    if status.st_uid != _TRUSTED or status.st_mode & _OTHERS_WRITE:
        raise ConfigError(
            f"{path} may be written by others than root, who could then say what is trusted; "
            "run chown root and chmod go-w on it",
            path=path,
        )
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than 1 MiB", path=path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text", path=path) from error
