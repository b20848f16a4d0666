"""Whole trees: removing them, measuring them, and keeping room on their file system.

Trees may hold whatever an image or a running program put there: any depth, any names, links to
anywhere. None of these functions follows a symbolic link or leaves the mount it began on.
"""

__all__ = [
    "allocated_bytes",
    "ensure_reserve",
    "free_bytes",
    "iter_allocated",
    "release_reserve",
    "remove_empty_directories",
    "remove_if_empty",
    "remove_tree",
]

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cas.errors import ConflictError, InUseError
from cas.fsops.cursor import Cursor, MountCrossedError
from cas.fsops.durable import sync_directory
from cas.fsops.effects import Effect, effect
from cas.fsops.mounts import find_mount, mounts_below
from cas.fsops.translation import storage_error, translated

_BLOCK_BYTES = 512
"""Unit of ``st_blocks``, whatever the file system's own block is."""
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_RESERVE_MODE = 0o600

_Advance = Callable[[int], object]
"""Told how many entries more were met; may raise to stop the work."""


def _tell_nobody(entries: int) -> None:
    pass


def remove_tree(path: Path, *, advance: _Advance = _tell_nobody) -> bool:
    """Remove a file or a directory with everything in it, durably.

    Idempotent: after a failure or a crash a part is gone, and a repeat removes the rest. Two
    callers at once help each other.

    Args:
        path: What to remove; a symbolic link is removed itself.
        advance: Told of progress, and may stop it.

    Returns:
        Whether it was there.

    Raises:
        InUseError: Something is mounted on or below it. What was mounted when the call began is
            found before anything is removed.
        DeniedError: The process may not remove an entry, for example an immutable one.
        StorageError: Any other failed system call.
    """
    _refuse_mounts(path)
    try:
        removed = _remove(path, advance)
    except MountCrossedError as error:
        raise _in_use(path, Path(error.filename)) from error
    except OSError as error:
        raise storage_error("remove", path, error) from error
    if path.parent.is_dir():
        sync_directory(path.parent)
    return removed


def remove_empty_directories(path: Path) -> None:
    """Remove the directories in ``path`` if there is nothing but directories, at any depth.

    After a failure some of them may be gone; nothing else ever goes. Not followed by a sync.

    Args:
        path: Stays itself.

    Raises:
        ConflictError: It holds something else, which is named; nothing was removed.
        InUseError: Something is mounted below it.
        StorageError: A system call failed.
    """
    with translated("empty", path):
        found = list(os.walk(path, topdown=False, onerror=_raise))
        for directory, directories, files in found:
            links = [name for name in directories if (Path(directory) / name).is_symlink()]
            for name in (*files, *links):
                raise ConflictError(
                    f"{str(path)!r} is not empty: it holds {str(Path(directory) / name)!r}; move "
                    "what it holds away",
                    path=path,
                )
        for directory, _, _ in found[:-1]:
            effect(Effect.UNLINK, directory)
            os.rmdir(directory)


def remove_if_empty(directory: Path) -> bool:
    """Remove a directory if there is nothing in it, durably. Idempotent.

    Returns:
        Whether it is gone.

    Raises:
        StorageError: A system call failed; also if it is no directory.
    """
    with translated("remove", directory):
        effect(Effect.UNLINK, directory)
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return False
            raise
    sync_directory(directory.parent)
    return True


def _raise(error: OSError) -> None:
    raise error


def _refuse_mounts(path: Path) -> None:
    for mount in (find_mount(path), *mounts_below(path)):
        if mount is not None:
            raise _in_use(path, mount.path)


def _in_use(path: Path, mount_point: Path) -> InUseError:
    message = (
        f"cannot remove {str(path)!r}: something is mounted at {str(mount_point)!r}, and removing "
        "it would empty what is mounted there; unmount it first"
    )
    return InUseError(message, path=path, mount_point=mount_point)


def _remove(path: Path, advance: _Advance) -> bool:
    effect(Effect.UNLINK, path)
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (IsADirectoryError, PermissionError):
        if path.is_symlink() or not path.is_dir():
            raise
    else:
        return True
    with suppress(FileNotFoundError):  # somebody else may be removing it too
        with Cursor(path) as cursor:
            _empty(cursor, advance)
        effect(Effect.UNLINK, path)
        path.rmdir()
    return True


def _empty(cursor: Cursor, advance: _Advance) -> None:
    """Remove everything in the cursor's directory, deepest first."""
    pending = [_remove_entries(cursor, advance)]
    while True:
        if pending[-1]:
            try:
                cursor.descend(pending[-1].pop())
            except FileNotFoundError:
                continue
            pending.append(_remove_entries(cursor, advance))
            continue
        if cursor.depth == 0:
            return
        pending.pop()
        _remove_directory(cursor, cursor.ascend())


def _remove_entries(cursor: Cursor, advance: _Advance) -> list[str]:
    """Remove what can be removed at once; gives the names of directories that are not empty."""
    full = []
    # Listed first: removing while a listing runs may hide entries from it.
    listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in _scan(cursor)]
    for name, is_directory in listed:
        advance(1)
        if is_directory:
            if not _remove_directory(cursor, name):
                full.append(name)
            continue
        effect(Effect.UNLINK, f"{cursor.path}/{name}")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=cursor.fileno())
    return full


def _remove_directory(cursor: Cursor, name: str) -> bool:
    path = f"{cursor.path}/{name}"
    effect(Effect.UNLINK, path)
    try:
        os.rmdir(name, dir_fd=cursor.fileno())
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno == errno.EBUSY:
            raise MountCrossedError(errno.EBUSY, "mounted", path) from error
        raise
    return True


def allocated_bytes(path: Path, *, advance: _Advance = _tell_nobody) -> int:
    """Measure what a file or tree takes on its file system; see :func:`iter_allocated`.

    Args:
        path: A file or directory.
        advance: Told of progress, and may stop it.
    """
    total = 0
    for size in iter_allocated(path):
        advance(1)
        total += size
    return total


def iter_allocated(path: Path) -> Iterator[int]:
    """Give the allocated bytes of each entry of a tree, ``path`` itself included.

    Allocated, not apparent: holes cost nothing, directories something. An inode with several
    names counts once. Entries that vanish meanwhile, and the content of what is mounted below,
    count nothing.
    Memory grows with the number of hard-linked inodes and with the widest directory only.

    Args:
        path: A file or directory; it may itself be a mount point. Absent, it takes nothing.

    Raises:
        DeniedError: The process may not look into a directory.
        StorageError: Any other failed system call.
    """
    with translated("measure", path):
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield status.st_blocks * _BLOCK_BYTES
        if path.is_dir() and not path.is_symlink():
            try:
                cursor = Cursor(path, mounted_top=True)
            except OSError as error:
                if error.errno in _VANISHED:
                    return
                raise
            with cursor:
                yield from _measure(cursor)


def _measure(cursor: Cursor) -> Iterator[int]:
    device = cursor.status().st_dev
    counted: set[tuple[int, int]] = set()
    pending: list[list[str]] = []
    while True:
        directories: list[str] = []
        for name, status, is_directory in _entries(cursor):
            # Files are not asked: an overlay shows theirs with other devices than its own.
            inode = (status.st_dev, status.st_ino)
            if inode in counted or (is_directory and status.st_dev != device):
                continue
            if is_directory:
                directories.append(name)
            elif status.st_nlink > 1:
                counted.add(inode)
            yield status.st_blocks * _BLOCK_BYTES
        pending.append(directories)
        if not _advance(cursor, pending):
            return


def _advance(cursor: Cursor, pending: list[list[str]]) -> bool:
    """Go to the next directory of a walk; False at its end."""
    while True:
        while pending[-1]:
            try:
                cursor.descend(pending[-1].pop())
            except MountCrossedError:
                continue
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
            else:
                return True
        pending.pop()
        if not pending:
            return False
        cursor.ascend()


def _entries(cursor: Cursor) -> Iterator[tuple[str, os.stat_result, bool]]:
    for entry in _scan(cursor):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield entry.name, status, entry.is_dir(follow_symlinks=False)


def _scan(cursor: Cursor) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(cursor.fileno()) as entries:
            yield from entries
    except FileNotFoundError:  # the directory was removed while it was open
        return


def free_bytes(path: Path) -> int:
    """How much a process without privileges could still write to the file system of ``path``.

    Raises:
        StorageError: The path does not exist, or another system call failed.
    """
    with translated("measure the room at", path):
        status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def ensure_reserve(path: Path, size: int) -> bool:
    """Keep ``size`` bytes allocated in a file, to be given up on a full disk. Idempotent.

    Returns:
        False if there is no room for it now; nothing is kept then, and nothing else fails.

    Raises:
        StorageError: A system call failed.
    """
    with translated("keep a reserve in", path):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, _RESERVE_MODE)
        try:
            if os.fstat(descriptor).st_blocks * _BLOCK_BYTES >= size:
                return True
            effect(Effect.WRITE_FILE, path)
            os.posix_fallocate(descriptor, 0, size)
            effect(Effect.FSYNC, path)
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        else:
            return True
        finally:
            os.close(descriptor)
    release_reserve(path)
    return False


def release_reserve(path: Path) -> int:
    """Give the reserve up; gives the bytes that came free. Idempotent.

    Raises:
        StorageError: A system call failed.
    """
    with translated("give up the reserve", path):
        try:
            status = path.lstat()
            effect(Effect.UNLINK, path)
            path.unlink()
        except FileNotFoundError:
            return 0
    sync_directory(path.parent)
    return status.st_blocks * _BLOCK_BYTES
