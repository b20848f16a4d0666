"""Landlock: which files this process may reach, whatever the permission bits say.

The rules hold for what is opened from now on, and for every thread that is started later. What
Landlock does not rule (owner, mode and times of files, unix sockets with a path) is left to user
and seccomp.
"""

__all__ = ["export_rules", "restrict_paths"]

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from py_landlock import (
    AccessFs,
    Landlock,
    LandlockError,
    PathBeneathAttr,
    RulesetAttr,
    RulesetFd,
    add_rule,
    create_ruleset,
    get_abi_version,
)
from py_landlock.abi import get_supported_fs, get_supported_scope

_OLDEST_ABI = 2
"""Before, nothing may be renamed from one directory into another, whatever the rules say."""
_READ = AccessFs.READ_FILE | AccessFs.READ_DIR
_WRITE = (
    _READ
    | AccessFs.WRITE_FILE
    | AccessFs.TRUNCATE
    | AccessFs.MAKE_REG
    | AccessFs.REMOVE_FILE
    | AccessFs.REFER
)
"""Regular files only: no directories, links, devices, sockets or pipes are made."""
_CHANGE = AccessFs.READ_FILE | AccessFs.WRITE_FILE | AccessFs.TRUNCATE
_RUN = AccessFs.READ_FILE | AccessFs.EXECUTE


def restrict_paths(
    *,
    writable: Collection[Path],
    readable: Collection[Path],
) -> str | None:
    """Forbid every path but these and what is below them; also signals and abstract sockets.

    Args:
        writable: Directories in which regular files may be made, written, renamed, removed.
        readable: Files and directories that may be read; those that do not exist are left out.

    Returns:
        Why that cannot be done here, in which case nothing is restricted; None if it was done.
    """
    try:
        landlock = Landlock(strict=False)
        if landlock.abi_version < _OLDEST_ABI:
            return _too_old(landlock.abi_version)
        landlock.add_path_rule(*writable, access=_WRITE)
        for path in readable:
            if path.exists():
                access = _READ if path.is_dir() else AccessFs.READ_FILE
                landlock.add_path_rule(path, access=access)
        landlock.allow_all_network().apply()
    except LandlockError as error:
        return str(error)
    return None


def export_rules(*, changeable: Collection[int], programs: Collection[Path]) -> int:
    """Prepare the same for a program that another process becomes, which puts it up before.

    Args:
        changeable: Descriptors of files that may be read and written, and nothing beside them.
        programs: Files and directories that may be run; those that do not exist are left out.

    Returns:
        A descriptor for the other process to inherit, which the caller closes.

    Raises:
        OSError: The kernel has no such rules, or too few.
    """
    try:
        version = get_abi_version()
        if version < _OLDEST_ABI:
            raise OSError(errno.ENOSYS, _too_old(version))
        handled = get_supported_fs(version)
        scoped = get_supported_scope(version)
        rules = create_ruleset(RulesetAttr(handled_access_fs=handled, scoped=scoped))
    except LandlockError as error:
        raise OSError(errno.ENOSYS, str(error)) from error
    try:
        for file in changeable:
            _allow(rules, file, _CHANGE & handled)
        for path in programs:
            with suppress(FileNotFoundError):
                _allow_below(rules, path, _RUN & handled)
    except LandlockError as error:
        os.close(rules)
        raise OSError(errno.ENOSYS, str(error)) from error
    except BaseException:
        os.close(rules)
        raise
    return rules


def _allow_below(rules: RulesetFd, path: Path, access: AccessFs) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _allow(rules, descriptor, access)
    finally:
        os.close(descriptor)


def _allow(rules: RulesetFd, descriptor: int, access: AccessFs) -> None:
    add_rule(rules, PathBeneathAttr(allowed_access=access, parent_fd=descriptor))


def _too_old(version: int) -> str:
    return f"the kernel has version {version} of it, {_OLDEST_ABI} is needed"
