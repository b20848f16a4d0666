"""Landlock: which files this process may reach, whatever the permission bits say.

The rules hold for what is opened from now on, and for every thread that is started later. What
Landlock does not rule (owner, mode and times of files, unix sockets with a path) is left to user
and seccomp.
"""

__all__ = ["restrict_paths"]

from collections.abc import Collection
from pathlib import Path

from py_landlock import AccessFs, Landlock, LandlockError

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
    changeable: Collection[Path] = (),
    programs: Collection[Path] = (),
) -> str | None:
    """Forbid every path but these and what is below them; also signals and abstract sockets.

    Args:
        writable: Directories in which regular files may be made, written, renamed, removed.
        readable: Files and directories that may be read; those that do not exist are left out.
        changeable: Files that may be read and written, and nothing beside them.
        programs: Files and directories that may be run; those that do not exist are left out.

    Returns:
        Why that cannot be done here, in which case nothing is restricted; None if it was done.
    """
    try:
        landlock = Landlock(strict=False)
        if landlock.abi_version < _OLDEST_ABI:
            return f"the kernel has version {landlock.abi_version} of it, {_OLDEST_ABI} is needed"
        landlock.add_path_rule(*writable, access=_WRITE)
        landlock.add_path_rule(*changeable, access=_CHANGE)
        for path in readable:
            if path.exists():
                access = _READ if path.is_dir() else AccessFs.READ_FILE
                landlock.add_path_rule(path, access=access)
        for path in programs:
            if path.exists():
                landlock.add_path_rule(path, access=_RUN)
        landlock.allow_all_network().apply()
    except LandlockError as error:
        return str(error)
    return None
