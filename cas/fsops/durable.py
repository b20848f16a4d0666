"""Names that survive a power cut: write, publish, make, remove.

Invariants: what these functions made is on the device when they return, name included; a final
name never shows a part of its content; a failed call leaves the old state, or, where the last
sync of a directory failed, a complete new one that is not promised.

A temporary file keeps a lock on itself while its writer lives, so that
:func:`remove_temporaries` can tell a leftover from work in progress. Nothing here knows what the
files mean.
"""

__all__ = [
    "exchange",
    "is_temporary",
    "make_directory",
    "publish",
    "remove_file",
    "remove_temporaries",
    "rename_aside",
    "set_owner_and_mode",
    "sync_directory",
    "sync_file_system",
    "temporary_name",
    "write_file",
]

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cas.errors import AlreadyExistsError, LayoutError
from cas.fsops import descriptors, kernel
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated

_TEMPORARY_SUFFIX = ".cas-temporary"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_WAIT = fcntl.LOCK_EX | fcntl.LOCK_NB
_NOT_A_LEFTOVER = frozenset(
    {
        errno.ENOENT,  # its writer, or another sweeper, was faster
        errno.EWOULDBLOCK,  # its writer lives
        errno.ENOTEMPTY,  # not made here: directories get their name while empty
        errno.ELOOP,  # nor are symbolic links
        errno.ENXIO,  # nor sockets
    }
)


def temporary_name() -> str:
    """Give a new unpredictable name that :func:`is_temporary` recognises."""
    return f".{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Tell whether a directory entry is an unfinished file or directory of this module."""
    return name.startswith(".") and name.endswith(_TEMPORARY_SUFFIX)


def write_file(
    path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Make ``path`` a file with exactly ``data``, durably and in one step.

    An existing file is replaced; a symbolic link is replaced, not followed. After a failure the
    old file is still there and no temporary one is. Idempotent. Blocks until it is on the device.

    Args:
        path: Final name; its directory exists.
        data: Whole content.
        mode: Permission bits, whatever the umask.
        owner: User and group id; None leaves those of this process.

    Raises:
        NoSpaceError: No room.
        DeniedError: The process may not write there.
        VaultLockedError: The directory's key is absent.
        StorageError: Any other failed system call.
    """
    with translated("write", path), _temporary_file(path.parent) as (descriptor, temporary):
        effect(Effect.WRITE_FILE, path)
        descriptors.write_all(descriptor, data)
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        effect(Effect.FSYNC, path)
        os.fsync(descriptor)
        effect(Effect.RENAME, path)
        kernel.rename(temporary, path, replace=True)
    sync_directory(path.parent)


@contextmanager
def _temporary_file(directory: Path) -> Iterator[tuple[int, Path]]:
    descriptor, path = _create_temporary(directory)
    try:
        yield descriptor, path
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _create_temporary(directory: Path) -> tuple[int, Path]:
    while True:
        path = directory / temporary_name()
        effect(Effect.WRITE_FILE, path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between open and flock a sweeper may have taken the file for a leftover.
        if os.fstat(descriptor).st_nlink == 1:
            return descriptor, path
        os.close(descriptor)


def make_directory(
    path: Path,
    *,
    mode: int,
    owner: tuple[int, int] | None = None,
    exist_ok: bool = True,
    parents: bool = False,
) -> None:
    """Make a directory that has its owner and mode from the first moment, durably.

    An existing directory is left as it is, its owner and mode included, and is not synced again.
    Idempotent.

    Args:
        path: The directory.
        mode: Permission bits, whatever the umask; parents made on the way get them too.
        owner: User and group id; None leaves those of this process.
        exist_ok: Whether an existing directory is success.
        parents: Make missing ancestors as well, each durably.

    Raises:
        AlreadyExistsError: It exists and ``exist_ok`` is not set.
        LayoutError: Something else has the name, a symbolic link to a directory included.
        NoSpaceError: No room.
        DeniedError: The process may not do this.
        VaultLockedError: The parent's key is absent.
        StorageError: Any other failed system call.
    """
    if _is_directory(path):
        if not exist_ok:
            message = f"cannot make directory {str(path)!r}: it exists"
            raise AlreadyExistsError(message, path=path)
        return
    if parents and path.parent != path and not path.parent.is_dir():
        make_directory(path.parent, mode=mode, owner=owner, parents=True)
    with translated("make directory", path):
        made = _make_directory(path, mode, owner)
    if not made:  # somebody was faster: judge what stands there now
        make_directory(path, mode=mode, owner=owner, exist_ok=exist_ok)
    sync_directory(path.parent)


def _is_directory(path: Path) -> bool:
    with translated("inspect", path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return False
    if stat.S_ISDIR(mode):
        return True
    message = (
        f"{str(path)!r} is not a directory (type {stat.S_IFMT(mode):o}), and a symbolic link to "
        "one is not accepted; remove it"
    )
    raise LayoutError(message, path=path)


def _make_directory(path: Path, mode: int, owner: tuple[int, int] | None) -> bool:
    effect(Effect.MKDIR, path)
    descriptor, temporary = _create_temporary_directory(path.parent)
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        effect(Effect.FSYNC, path)
        os.fsync(descriptor)
        effect(Effect.RENAME, path)
        kernel.rename(temporary, path)
    except FileExistsError:
        temporary.rmdir()
        return False
    except BaseException:
        with suppress(OSError):
            temporary.rmdir()
        raise
    finally:
        os.close(descriptor)
    return True


def _create_temporary_directory(parent: Path) -> tuple[int, Path]:
    while True:
        path = parent / temporary_name()
        path.mkdir(mode=0o700)
        # A sweeper may take the directory for a leftover until it is locked.
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor, path
        os.close(descriptor)


def set_owner_and_mode(path: Path, *, user: int, group: int, mode: int) -> None:
    """Give an existing directory an owner and permission bits, durably. Idempotent.

    Raises:
        LayoutError: It is not a directory; a symbolic link to one is not followed.
        DeniedError: The process may not do this.
        StorageError: It does not exist, or another system call failed.
    """
    _is_directory(path)
    with translated("set the owner of", path):
        descriptor = descriptors.open_directory(path)
        try:
            effect(Effect.ACCESS, path)
            os.fchown(descriptor, user, group)
            os.fchmod(descriptor, mode)
            effect(Effect.FSYNC, path)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        StorageError: The sync failed; whether names of the directory survive is unknown.
    """
    with translated("sync directory", path):
        descriptor = os.open(path, _DIRECTORY)
        try:
            effect(Effect.FSYNC, path)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Make everything that was written to the file system of ``path`` durable.

    Blocks for as long as the device needs for all of it, whoever wrote it.

    Raises:
        StorageError: The sync failed, or an earlier write-back did since the last sync.
    """
    with translated("sync the file system of", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            effect(Effect.FSYNC, path)
            kernel.sync_file_system(descriptor)
        finally:
            os.close(descriptor)


def publish(temporary: Path, final: Path, *, replace: bool = False) -> None:
    """Give a finished file or directory its final name, durably.

    The content must be synced already: this makes the name durable, nothing else.

    Args:
        temporary: The finished thing, on the same file system.
        final: The name it gets.
        replace: Whether an existing ``final`` gives way; otherwise it is never touched.

    Raises:
        AlreadyExistsError: ``final`` exists and ``replace`` is not set; nothing changed.
        StorageError: Any other failed system call.
    """
    with translated("publish", final):
        effect(Effect.RENAME, final)
        kernel.rename(temporary, final, replace=replace)
    _sync_parents(temporary, final)


def rename_aside(path: Path, aside: Path) -> bool:
    """Take a name away, durably, keeping what it named under ``aside``.

    Returns:
        False if ``path`` did not exist.

    Raises:
        AlreadyExistsError: ``aside`` is taken; nothing changed.
        StorageError: Any other failed system call.
    """
    with translated("set aside", path):
        effect(Effect.RENAME, path)
        try:
            kernel.rename(path, aside)
        except FileNotFoundError:
            if path.parent.is_dir() and aside.parent.is_dir() and not os.path.lexists(path):
                return False
            raise
    _sync_parents(path, aside)
    return True


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step, durably; there is no moment at which one is missing.

    Raises:
        StorageError: A system call failed, for example because one does not exist.
    """
    with translated("exchange", first):
        effect(Effect.RENAME, first)
        kernel.rename(first, second, exchange=True)
    _sync_parents(first, second)


def _sync_parents(source: Path, target: Path) -> None:
    # The new name first: a crash between the two then shows both names and loses nothing.
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def remove_file(path: Path, *, missing_ok: bool = True, sync: bool = True) -> bool:
    """Remove a file or symbolic link, durably.

    Args:
        path: What to remove; never a directory.
        missing_ok: Whether its absence is success.
        sync: False leaves the directory to a later :func:`sync_directory`, for bulk work.

    Returns:
        Whether it was there.

    Raises:
        StorageError: A system call failed, or it is absent and ``missing_ok`` is not set.
    """
    with translated("remove", path):
        effect(Effect.UNLINK, path)
        try:
            path.unlink()
            removed = True
        except FileNotFoundError:
            if not missing_ok:
                raise
            removed = False
    # Also when it was absent: a removal before a crash may not have been synced.
    if sync and path.parent.is_dir():
        sync_directory(path.parent)
    return removed


def remove_temporaries(directory: Path) -> int:
    """Remove what killed writers left in ``directory``; living writers are left alone.

    Returns:
        How many were removed.

    Raises:
        StorageError: A system call failed.
    """
    count = 0
    with translated("clean", directory):
        with os.scandir(directory) as entries:
            leftovers = [Path(entry.path) for entry in entries if is_temporary(entry.name)]
        for leftover in leftovers:
            count += _remove_leftover(leftover)
    if count:
        sync_directory(directory)
    return count


def _remove_leftover(path: Path) -> bool:
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(descriptor, _NO_WAIT)
        effect(Effect.UNLINK, path)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            path.rmdir()
        else:
            path.unlink()
    except OSError as error:
        if error.errno in _NOT_A_LEFTOVER:
            return False
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True
