"""The flags and the project of an inode, which are neither mode nor extended attributes.

Kept are those that somebody sets on purpose: append-only, immutable, no dump, no access times,
synchronous, and the project with its inheritance. Not every file system has all of them, so what
a copy cannot have is told, and fails nothing. Two of them bar all changes: they are given last,
and never to the top of a copy, which has to get its name yet.

Source: ioctl_iflags(2), ioctl_fsxattr in include/uapi/linux/fs.h.
"""

__all__ = ["FlagCopy", "remove_barred"]

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cas.errors import DeniedError
from cas.fsops.cursor import Cursor
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree

_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_GET_EXTENDED = 0x801C581F
_SET_EXTENDED = 0x401C5820
_BITS = struct.Struct("=I4x")
_EXTENDED_BYTES = 28
_PROJECT_OF, _PROJECT_OFFSET = struct.Struct("=I"), 12

_APPEND, _IMMUTABLE = 0x20, 0x10
_BARRING = _APPEND | _IMMUTABLE
_OTHERS = (0x8, 0x40, 0x80, 0x10000, 0x20000000)
"""Synchronous, no dump, no access times, synchronous directory, project inherited."""
_KEPT = _BARRING | sum(_OTHERS)
_UNSUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_REPORTED = 100

_Entry = tuple[int, str]
"""Descriptor of a directory, and a name in it; empty for the directory itself."""


@dataclass(frozen=True, slots=True)
class _Flags:
    bits: int
    project: int


_NONE = _Flags(0, 0)


class FlagCopy:
    """Gives the files and directories of a copy what their originals have.

    Attributes:
        lost: Paths in the original whose flags the copy could not have, at most a hundred.
    """

    def __init__(self) -> None:
        self.lost: list[str] = []
        self._late: list[tuple[str, _Flags, str]] = []

    def copy(self, source: _Entry, target: _Entry, told: str, *, top: bool, linked: bool) -> None:
        """Copy what one file or directory has, when all else of it is complete.

        Args:
            source: The original.
            target: Its copy.
            told: What the original is called.
            top: Whether it is the whole of what is copied.
            linked: Whether it gets more names, which a flag would bar.

        Raises:
            OSError: A system call failed, other than for want of support.
        """
        with _opened(*source) as descriptor:
            flags = _read(descriptor)
        if top and flags.bits & _BARRING:
            self._lose(told)
            flags = replace(flags, bits=flags.bits & ~_BARRING)
        if flags == _NONE:
            return
        with _opened(*target) as descriptor:
            if linked:
                place = os.readlink(f"/proc/self/fd/{descriptor}")
                self._late.append((place, flags, told))
            else:
                self._give(descriptor, flags, told)

    def finish(self) -> None:
        """Give what had to wait for further names."""
        for place, flags, told in self._late:
            descriptor = os.open(place, _OPEN)
            try:
                self._give(descriptor, flags, told)
            finally:
                os.close(descriptor)

    def _give(self, descriptor: int, flags: _Flags, told: str) -> None:
        effect(Effect.ACCESS, told)
        # The project first: nothing changes once a flag bars it.
        given = not flags.project or _try(_write_project, descriptor, flags.project)
        for bits in (*_OTHERS, _BARRING):
            if flags.bits & bits:
                given = _try(_add_bits, descriptor, flags.bits & bits) and given
        if not given:
            self._lose(told)

    def _lose(self, told: str) -> None:
        if len(self.lost) < _MAX_REPORTED:
            self.lost.append(told)


def remove_barred(path: Path, *, advance: Callable[[int], object] = lambda _: None) -> bool:
    """Remove a tree as :func:`cas.fsops.trees.remove_tree` does, also if flags bar that.

    A file that has a name outside the tree as well loses the two flags that bar, there too: no
    name of it can be removed otherwise.

    Args:
        path: See there.
        advance: Likewise.

    Returns:
        Whether it was there.

    Raises:
        InUseError: Something is mounted in it.
        DeniedError: It may not be removed for another reason.
        StorageError: Any other failed system call.
    """
    try:
        return remove_tree(path, advance=advance)
    except DeniedError:
        if path.is_symlink() or not path.is_dir():
            raise
        _unbar(path)
        return remove_tree(path, advance=advance)


def _unbar(path: Path) -> None:
    """Take from everything in a tree the flags under which it cannot be removed."""
    with translated("unbar", path), Cursor(path) as cursor:
        pending = [_unbar_entries(cursor)]
        while pending:
            if pending[-1]:
                cursor.descend(pending[-1].pop())
                pending.append(_unbar_entries(cursor))
                continue
            pending.pop()
            if pending:
                cursor.ascend()


def _unbar_entries(cursor: Cursor) -> list[str]:
    _unbar_one(cursor.fileno(), cursor.path)
    directories = []
    with os.scandir(cursor.fileno()) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                with _opened(cursor.fileno(), entry.name) as descriptor:
                    _unbar_one(descriptor, f"{cursor.path}/{entry.name}")
    return directories


@contextmanager
def _opened(directory: int, name: str) -> Iterator[int]:
    descriptor = os.open(name or ".", _OPEN, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> _Flags:
    try:
        bits = _bits(descriptor) & _KEPT
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return _NONE
        raise
    try:
        return _Flags(bits, _PROJECT_OF.unpack_from(_extended(descriptor), _PROJECT_OFFSET)[0])
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return _Flags(bits, 0)
        raise


def _try(change: Callable[[int, int], None], descriptor: int, value: int) -> bool:
    try:
        change(descriptor, value)
    except OSError as error:
        if error.errno in _UNSUPPORTED or error.errno == errno.EPERM:
            return False
        raise
    return True


def _bits(descriptor: int) -> int:
    buffer = bytearray(_BITS.size)
    fcntl.ioctl(descriptor, _GET_FLAGS, buffer, True)  # noqa: FBT003 - positional only
    (bits,) = _BITS.unpack(buffer)
    return int(bits)


def _add_bits(descriptor: int, bits: int) -> None:
    fcntl.ioctl(descriptor, _SET_FLAGS, _BITS.pack(_bits(descriptor) | bits))


def _unbar_one(descriptor: int, told: str) -> None:
    try:
        found = _bits(descriptor)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise
    if found & _BARRING:
        effect(Effect.ACCESS, told)
        fcntl.ioctl(descriptor, _SET_FLAGS, _BITS.pack(found & ~_BARRING))


def _extended(descriptor: int) -> bytearray:
    buffer = bytearray(_EXTENDED_BYTES)
    fcntl.ioctl(descriptor, _GET_EXTENDED, buffer, True)  # noqa: FBT003 - positional only
    return buffer


def _write_project(descriptor: int, project: int) -> None:
    attributes = _extended(descriptor)
    _PROJECT_OF.pack_into(attributes, _PROJECT_OFFSET, project)
    fcntl.ioctl(descriptor, _SET_EXTENDED, bytes(attributes))
