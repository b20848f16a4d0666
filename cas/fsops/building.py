"""Building a small directory under a temporary name, to be published whole.

Nothing in such a directory needs to be durable before the rest of it is, so it is written first
and synced at once: a few journal commits instead of several for each entry. Publishing it is
:func:`cas.fsops.durable.publish`.
"""

__all__ = ["build_directory", "sync_tree"]

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cas.fsops import kernel
from cas.fsops.descriptors import write_all
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def build_directory(
    path: Path,
    *,
    files: Mapping[str, bytes],
    directories: Mapping[str, int],
    mode: int = 0o700,
    file_mode: int = 0o644,
) -> None:
    """Make a directory with empty directories and small files in it; nothing is durable yet.

    After failure a part of it may be there, for the caller to remove.

    Args:
        path: Does not exist.
        files: Name to content.
        directories: Name to permission bits.
        mode: Permission bits of ``path``, whatever the umask.
        file_mode: Permission bits of the files.

    Raises:
        AlreadyExistsError: ``path`` exists.
        NoSpaceError: No room.
        StorageError: Any other failed system call.
    """
    with translated("build", path):
        effect(Effect.MKDIR, path)
        path.mkdir(mode=0o700)
        for name, bits in directories.items():
            effect(Effect.MKDIR, path / name)
            (path / name).mkdir(mode=0o700)
            (path / name).chmod(bits)
        for name, data in files.items():
            _write(path / name, data, file_mode)
        path.chmod(mode)


def _write(path: Path, data: bytes, mode: int) -> None:
    effect(Effect.WRITE_FILE, path)
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        write_all(descriptor, data)
        os.fchmod(descriptor, mode)
        # Blocks are allocated now, so that one journal commit later covers all files.
        kernel.start_writeback(descriptor, 0, len(data))
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make a tree durable, names and content, but not its own name; for small trees of ours.

    Raises:
        StorageError: A sync failed; discard the tree.
    """
    with translated("sync", path):
        for directory, _, names in os.walk(path, topdown=False, onerror=_raise):
            for name in names:
                _sync(Path(directory, name))
            _sync(Path(directory))


def _raise(error: OSError) -> None:
    raise error


def _sync(path: Path) -> None:
    with _opened(path) as descriptor:
        effect(Effect.FSYNC, path)
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _READ)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
