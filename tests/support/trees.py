"""What a mounted image must look like, computed from the layers' entries, and what it does."""

__all__ = ["Tree", "merged_tree", "names_below", "read_tree"]

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.support.layers import Entry

Tree = dict[str, tuple[str, int, str]]
"""Path to kind, permission bits and content: digest of a file, target of a symbolic link."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


def merged_tree(layers: Iterable[Sequence[Entry]]) -> Tree:
    """Put layers of files, directories, symbolic links and whiteouts over each other."""
    tree: Tree = {}
    for entries in layers:
        for entry in entries:
            _hide(tree, entry)
        tree |= {entry.name: _value(entry) for entry in entries if not _is_mark(entry)}
    return tree


def read_tree(root: Path) -> Tree:
    """Read all of a directory; regular files to their last byte."""
    return {str(path.relative_to(root)): _value_of(path) for path in _iter_below(root)}


def names_below(root: Path) -> set[str]:
    """Paths of everything below a directory in which things may vanish meanwhile."""
    # Unlike Path.rglob, which fails at a directory that goes between two looks.
    return {
        str(Path(directory, name))
        for directory, names, files in os.walk(root)
        for name in (*names, *files)
    }


def _is_mark(entry: Entry) -> bool:
    return entry.name.rpartition("/")[2].startswith(_WHITEOUT)


def _hide(tree: Tree, entry: Entry) -> None:
    """Apply a whiteout to what the layers below have."""
    parent, _, base = entry.name.rpartition("/")
    if base == _OPAQUE:
        hidden = [path for path in tree if path.startswith(f"{parent}/")]
    elif base.startswith(_WHITEOUT):
        target = f"{parent}/{base.removeprefix(_WHITEOUT)}".lstrip("/")
        hidden = [path for path in tree if path == target or path.startswith(f"{target}/")]
    else:
        hidden = []
    for path in hidden:
        del tree[path]


def _value(entry: Entry) -> tuple[str, int, str]:
    match entry.type:
        case tarfile.DIRTYPE:
            return "directory", entry.mode, ""
        case tarfile.SYMTYPE:
            return "link", 0, entry.target
        case tarfile.REGTYPE:
            return "file", entry.mode, hashlib.sha256(entry.data).hexdigest()
    raise AssertionError(f"no expectation for {entry.name} of type {entry.type!r}")


def _iter_below(root: Path) -> Iterable[Path]:
    for directory, names, files in os.walk(root, onerror=_raise):
        for name in (*names, *files):
            yield Path(directory, name)


def _raise(error: OSError) -> None:
    raise error


def _value_of(path: Path) -> tuple[str, int, str]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "link", 0, str(path.readlink())
    if stat.S_ISDIR(mode):
        return "directory", stat.S_IMODE(mode), ""
    if stat.S_ISCHR(mode):
        return "device", stat.S_IMODE(mode), str(path.lstat().st_rdev)
    assert stat.S_ISREG(mode), path
    return "file", stat.S_IMODE(mode), hashlib.sha256(path.read_bytes()).hexdigest()
