"""Lists what lies in the old places; changes nothing.

Directories are listed as a whole, by name, so that two runs plan the same. An entry that vanishes
meanwhile is left out.
"""

__all__ = ["identity_of", "scan"]

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cas.errors import InvalidNameError
from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.upgrade.items import FileType, Found, Identity, Kind
from cas.upgrade.old_layout import OldLayout

_BLOCK_BYTES = 512
_UNFINISHED = frozenset({"pending", "verifier"})
_VERIFIED = "verified"


def scan(layout: Layout) -> Iterator[Found]:
    """Give what lies in the old places.

    Raises:
        DeniedError: The process may not look there.
        StorageError: Any other failed system call.
    """
    old = OldLayout(layout.persist)
    for store in old.stores:  # first: what becomes of containers depends on it
        yield from _look(Kind.STORE, store)
    yield from _entries(Kind.DISK, old.disks)
    yield from _entries(Kind.CONTAINER, old.containers, *old.above_containers)
    yield from _suffixed(layout)
    yield from _downloads(old.downloads)


def _downloads(directory: Path) -> Iterator[Found]:
    for kind in _entries(Kind.DOWNLOAD, directory):
        if kind.type is not FileType.DIRECTORY:
            yield kind
            continue
        for state in _entries(Kind.DOWNLOAD, kind.path):
            if state.type is FileType.DIRECTORY and state.path.name in _UNFINISHED:
                yield from _entries(Kind.DOWNLOAD, state.path)
            elif state.type is FileType.DIRECTORY and state.path.name == _VERIFIED:
                yield from _verified(state.path)
            else:
                yield state


def _verified(directory: Path) -> Iterator[Found]:
    """Give the one file in each directory, or what is there instead as a whole."""
    for found in _entries(Kind.VERIFIED, directory):
        inside = _names(found.path) if found.type is FileType.DIRECTORY else []
        if len(inside) == 1:
            yield from _look(Kind.VERIFIED, found.path / inside[0])
        else:
            yield found


def _suffixed(layout: Layout) -> Iterator[Found]:
    for directory in (layout.volumes, layout.clear_volumes):
        for name in _names(directory):
            stem, _, suffix = name.partition(".")
            if suffix and _is_volume_name(stem):
                yield from _look(Kind.SUFFIXED, directory / name)


def _is_volume_name(text: str) -> bool:
    try:
        VolumeName.parse(text)
    except InvalidNameError:
        return False
    return True


def _entries(kind: Kind, directory: Path, *above: Path) -> Iterator[Found]:
    """Give what is in an old place, or what there is instead of a directory on the way to it.

    No link is followed: what it leads to is somebody else's.
    """
    for place in (*above, directory):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            yield from _look(kind, place)
            return
    for name in _names(directory):
        yield from _look(kind, directory / name)


def _names(directory: Path) -> list[str]:
    with translated("list", directory):
        try:
            if directory.is_symlink():
                return []
            return sorted(path.name for path in directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _look(kind: Kind, path: Path) -> Iterator[Found]:
    with translated("inspect", path):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
    file_type = _type(status.st_mode)
    size = status.st_blocks * _BLOCK_BYTES
    yield Found(kind, path, file_type, identity_of(status), size)


def identity_of(status: os.stat_result) -> Identity:
    """Take from a status what tells a file, and its state, from others."""
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns)


def _type(mode: int) -> FileType:
    if stat.S_ISREG(mode):
        return FileType.FILE
    return FileType.DIRECTORY if stat.S_ISDIR(mode) else FileType.OTHER
