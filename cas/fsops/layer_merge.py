"""Joins two neighbouring layers of an overlay into the upper one, without copying a byte.

Whoever looks through both sees the same before, during and after it (but for times of directories,
during it): each step moves or removes what the other layer hides, or does not have. So it may be
killed anywhere and repeated, and no journal is needed. What each step relies on is the kernel's
documentation of overlayfs (whiteouts and opaque directories). Neither layer may be mounted
meanwhile.
"""

__all__ = ["can_merge", "merge_layer"]

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.fsops.cursor import Cursor
from cas.fsops.durable import make_directory, sync_file_system
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree

_OPAQUE = "trusted.overlay.opaque"
_FORWARD = ("trusted.overlay.redirect", "trusted.overlay.metacopy")
"""On what takes its content from another name of the layers below."""
_TIMES = "trusted.overlay.cas_times"
"""On a directory that is being merged into: its times before. Overlays show no such attribute."""
_YES = b"y"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def can_merge(above: Path) -> bool:
    """Whether no directory of the layer takes its content from another name below.

    Only kernels that were told to make such layers; then what seems to be hidden is not.

    Raises:
        StorageError: The layer cannot be read.
    """
    with translated("look through", above), Cursor(above) as cursor:
        pending = [_directories(cursor)]
        while True:
            if any(_attribute(cursor.fileno(), name) is not None for name in _FORWARD):
                return False
            while not pending[-1]:
                if cursor.depth == 0:
                    return True
                pending.pop()
                cursor.ascend()
            cursor.descend(pending[-1].pop())
            pending.append(_directories(cursor))


def merge_layer(below: Path, above: Path, trash: Path) -> None:
    """Move what ``above`` does not hide out of ``below`` into it, and remove the rest.

    Takes time by the number of names in ``below``; needs no room for files. Durable when it
    returns.

    Args:
        below: Top of the lower layer; empty afterwards.
        above: Top of the layer on it.
        trash: A directory of the same file system for what is hidden; emptied and gone afterwards.

    Raises:
        NoSpaceError: A directory of ``above`` cannot grow; a repetition goes on.
        StorageError: A system call failed; a repetition goes on.
    """
    remove_tree(trash)
    make_directory(trash, mode=0o700)
    with translated("merge", below), Cursor(below) as low, Cursor(above) as high:
        _Merge(low, high, trash).run()
    sync_file_system(above)
    remove_tree(trash)


class _Merge:
    """One walk through both layers, side by side."""

    def __init__(self, low: Cursor, high: Cursor, trash: Path) -> None:
        self._low = low
        self._high = high
        self._trash = trash
        self._discarded = 0

    def run(self) -> None:
        """Empty the lower layer."""
        low, high = self._low, self._high
        pending = [self._merge_entries()]
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                low.descend(name)
                high.descend(name)
                pending.append(self._merge_entries())
                continue
            if low.depth == 0:
                return
            pending.pop()
            if _is_opaque(low.fileno()):
                # Last, for until now the lower layer's own mark has hidden what is below both.
                _make_opaque(high)
            high.ascend()
            name = low.ascend()
            effect(Effect.UNLINK, f"{low.path}/{name}")
            os.rmdir(name, dir_fd=low.fileno())

    def _merge_entries(self) -> list[str]:
        """Deal with the names of one directory; gives those of directories that both have."""
        low, high = self._low.fileno(), self._high.fileno()
        opaque = _is_opaque(high)
        with _times_kept(high):
            return [name for name in os.listdir(low) if self._merge_entry(name, opaque=opaque)]

    def _merge_entry(self, name: str, *, opaque: bool) -> bool:
        low, high = self._low.fileno(), self._high.fileno()
        mode = _mode(high, name)
        if mode is None and not opaque:
            effect(Effect.RENAME, f"{self._high.path}/{name}")
            os.rename(name, name, src_dir_fd=low, dst_dir_fd=high)
        elif opaque or not stat.S_ISDIR(mode or 0):
            self._discard(name)
        elif stat.S_ISDIR(_mode(low, name) or 0):
            return True
        else:
            # A directory that is not marked shows what is below, if nothing is in between.
            _make_opaque(self._high, name)
            self._discard(name)
        return False

    def _discard(self, name: str) -> None:
        """Take what nobody can see out of the layer; the trash is removed at the end."""
        hidden = self._trash / str(self._discarded)
        self._discarded += 1
        effect(Effect.RENAME, f"{self._low.path}/{name}")
        os.rename(name, hidden, src_dir_fd=self._low.fileno())


@contextmanager
def _times_kept(descriptor: int) -> Iterator[None]:
    """Give a directory its times back, also those that an interrupted merge had noted."""
    noted = _attribute(descriptor, _TIMES)
    if noted is None:
        status = os.fstat(descriptor)
        noted = f"{status.st_atime_ns} {status.st_mtime_ns}".encode()
        effect(Effect.ACCESS, _TIMES)
        os.setxattr(descriptor, _TIMES, noted)
    yield
    accessed, modified = map(int, noted.split())
    effect(Effect.ACCESS, _TIMES)
    os.utime(descriptor, ns=(accessed, modified))
    os.removexattr(descriptor, _TIMES)


def _directories(cursor: Cursor) -> list[str]:
    with os.scandir(cursor.fileno()) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _mode(directory: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _is_opaque(descriptor: int) -> bool:
    return _attribute(descriptor, _OPAQUE) == _YES


def _attribute(descriptor: int, name: str) -> bytes | None:
    try:
        return os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def _make_opaque(cursor: Cursor, name: str = ".") -> None:
    descriptor = os.open(name, _DIRECTORY, dir_fd=cursor.fileno())
    try:
        effect(Effect.ACCESS, f"{cursor.path}/{name}")
        os.setxattr(descriptor, _OPAQUE, _YES)
    finally:
        os.close(descriptor)
