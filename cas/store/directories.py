"""The directories of the layout: created, checked, repaired.

What must be there is :meth:`cas.model.layout.Layout.directories`; here it meets the disk. Nothing
here removes anything.
"""

__all__ = [
    "Deviation",
    "create_directories",
    "find_deviations",
    "require_directories",
    "require_group",
]

import grp
import os
import pwd
import stat
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cas.errors import DeniedError, LayoutError, VaultLockedError
from cas.fsops.durable import make_directory, set_owner_and_mode
from cas.fsops.encryption import EncryptionState, encryption_state
from cas.model.layout import LayoutDirectory
from cas.model.settings import Settings
from cas.model.vault_settings import VaultName


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing about a directory that is not as the layout wants it.

    Args:
        path: The directory.
        problem: ``missing``, ``symlink``, ``not-a-directory``, ``file-system``, ``owner``,
            ``group``, ``mode``, ``unknown-owner``, or ``locked`` for a vault below which nothing
            can be seen.
        expected: What the layout wants.
        actual: What is there.
        fixable: Whether ``cas layout check --fix`` repairs it.
    """

    path: Path
    problem: str
    expected: str
    actual: str
    fixable: bool

    def describe(self) -> str:
        """One line for people."""
        return f"{self.problem}: expected {self.expected}, found {self.actual}"


def _user_id(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isdecimal() else None


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isdecimal() else None


def _examine(settings: Settings, wanted: LayoutDirectory) -> Iterator[Deviation]:
    path = wanted.path
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield Deviation(path, "missing", "a directory", "nothing", fixable=True)
        return
    if stat.S_ISLNK(found.st_mode):
        yield Deviation(path, "symlink", "a directory", "a symbolic link", fixable=False)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Deviation(path, "not-a-directory", "a directory", "something else", fixable=False)
        return
    # The vault and the clear area may be file systems of their own; below them nothing may.
    if path.parent != settings.persist and found.st_dev != path.parent.stat().st_dev:
        yield Deviation(
            path, "file-system", f"the file system of {path.parent}", "another one", fixable=False
        )
    for problem, name, expected, actual in (
        (
            "owner",
            settings.owners[wanted.owner],
            _user_id(settings.owners[wanted.owner]),
            found.st_uid,
        ),
        (
            "group",
            settings.owners[wanted.group],
            _group_id(settings.owners[wanted.group]),
            found.st_gid,
        ),
    ):
        if expected is None:
            yield Deviation(
                path, f"unknown-{problem}", f"{problem} {name}", "no such account", fixable=True
            )
        elif expected != actual:
            yield Deviation(path, problem, f"{name} ({expected})", str(actual), fixable=True)
    mode = stat.S_IMODE(found.st_mode)
    if mode != wanted.mode:
        yield Deviation(path, "mode", f"{wanted.mode:04o}", f"{mode:04o}", fixable=True)


def find_deviations(settings: Settings) -> Iterator[Deviation]:
    """Compare every directory of the layout with the disk; changes nothing.

    Yields:
        Deviations in the order of the layout.
    """
    locked = _locked_vaults(settings)
    for wanted in settings.layout.directories():
        if wanted.path in locked:
            yield Deviation(wanted.path, "locked", "an open vault", "a locked one", fixable=False)
        if locked.isdisjoint(wanted.path.parents):
            yield from _examine(settings, wanted)


def _locked(vault: Path) -> VaultLockedError:
    return VaultLockedError(
        f"the vault {str(vault)!r} is locked, so that its directories cannot be seen; unlock it "
        "first, by `cas vault unlock`",
        path=vault,
    )


def _locked_vaults(settings: Settings) -> set[Path]:
    vaults = (settings.layout.vault_directory(name) for name in VaultName)
    return {
        vault
        for vault in vaults
        if vault.is_dir() and encryption_state(vault) is EncryptionState.ENCRYPTED_LOCKED
    }


def require_directories(settings: Settings, paths: Collection[Path]) -> None:
    """Refuse to work in directories that are not the layout's.

    Owner and mode must be those of the layout; looking costs one ``lstat`` per path.

    Raises:
        LayoutError: One of ``paths`` is missing, a symbolic link, on another file system than its
            parent, or has the wrong owner, group or mode.
        VaultLockedError: One of them is in a locked vault.
    """
    for vault in _locked_vaults(settings):
        if any(vault in (path, *path.parents) for path in paths):
            raise _locked(vault)
    for wanted in settings.layout.directories():
        if wanted.path not in paths:
            continue
        for deviation in _examine(settings, wanted):
            verb = "init" if deviation.problem == "missing" else "check --fix"
            raise LayoutError(
                f"{deviation.path} is not as the layout wants it: {deviation.describe()}; "
                + (f"run 'cas layout {verb}'" if deviation.fixable else "put it right by hand"),
                path=deviation.path,
                expected=deviation.expected,
                actual=deviation.actual,
            )


def _make_account(tool: str, name: str) -> None:
    command = [tool, "--system", name]
    if tool == "useradd":
        command[2:2] = ["--no-create-home", "--shell", "/usr/sbin/nologin", "--user-group"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LayoutError(
            f"{name!r} does not exist and {tool} is not installed; create it, or name another "
            "account under [owners] in the configuration",
            account=name,
        ) from error
    except subprocess.CalledProcessError as error:
        raise LayoutError(
            f"{name!r} could not be created by {tool}: {error.stderr.strip()}", account=name
        ) from error


def _owner_ids(settings: Settings, wanted: LayoutDirectory) -> tuple[int, int]:
    user_name, group_name = settings.owners[wanted.owner], settings.owners[wanted.group]
    if _group_id(group_name) is None:
        _make_account("groupadd", group_name)
    if _user_id(user_name) is None:
        _make_account("useradd", user_name)
    user, group = _user_id(user_name), _group_id(group_name)
    if user is None or group is None:
        raise LayoutError(f"account {user_name}:{group_name} does not resolve", path=wanted.path)
    return user, group


def create_directories(
    settings: Settings, *, repair: bool | Collection[Path] = False
) -> list[Path]:
    """Create what is missing, durably, and the system accounts that own it.

    Idempotent. What exists keeps its owner and mode unless ``repair`` is given. The persist
    directory itself is created too, with mode 0755.

    Args:
        settings: Persist directory and account names.
        repair: Also set owner and mode of what exists, or of these directories alone.

    Returns:
        The directories that were created or repaired.

    Raises:
        DeniedError: The process is not root.
        LayoutError: Something that is no directory is in the way, or an account cannot be made.
        VaultLockedError: A vault is locked; nothing was created.
    """
    if os.geteuid() != 0:
        raise DeniedError("creating the layout needs root; run it as root")
    for vault in _locked_vaults(settings):
        raise _locked(vault)
    # The parent of the persist directory is not ours; a missing one is made as mkdir -p does.
    settings.persist.parent.mkdir(parents=True, exist_ok=True)
    make_directory(settings.persist, mode=0o755)
    if isinstance(repair, bool):
        repair = [each.path for each in settings.layout.directories()] if repair else ()
    return list(_created(settings, repair))


def _created(settings: Settings, repair: Collection[Path]) -> Iterator[Path]:
    for wanted in settings.layout.directories():
        deviations = list(_examine(settings, wanted))
        stuck = [deviation for deviation in deviations if not deviation.fixable]
        if stuck:
            raise LayoutError(
                f"{wanted.path} cannot be used: {stuck[0].describe()}; put it right by hand",
                path=wanted.path,
            )
        missing = any(deviation.problem == "missing" for deviation in deviations)
        if missing:
            make_directory(wanted.path, mode=wanted.mode, owner=_owner_ids(settings, wanted))
        elif deviations and wanted.path in repair:
            user, group = _owner_ids(settings, wanted)
            set_owner_and_mode(wanted.path, user=user, group=group, mode=wanted.mode)
        else:
            continue
        yield wanted.path


def require_group(settings: Settings, role: str) -> int:
    """Give the id of the group that a role's accounts are in.

    Raises:
        LayoutError: There is no such group.
    """
    group = _group_id(settings.owners[role])
    if group is None:
        raise LayoutError(
            f"there is no group {settings.owners[role]!r}; run `cas layout init`", role=role
        )
    return group
