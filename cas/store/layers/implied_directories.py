"""Gives directories that a layer only implies the attributes they have in the layers below.

A layer may hold ``tmp/x`` without an entry for ``tmp``. containerd then makes ``tmp`` and copies
owner, mode and extended attributes from the parents that it is shown. Unpacked away from its
parents the directory has mode 0755 and belongs to root, and ``/tmp`` would lose its sticky bit.
Here they are found and put right, exactly as containerd would have done it.

A directory with an entry of its own gets the time of change that the layer says, so that one
which has mode 0755, belongs to root and changed while the layer was unpacked is an implied one.
Below a directory with the set-group-ID bit the kernel passes on the group, in both ways.
"""

__all__ = ["restore_implied_directories"]

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cas.fsops.translation import translated
from cas.store.layers.staging import StagingUnsuitableError

_MADE_MODE = 0o755
_MOST_LINKS = 255
_UNAVAILABLE = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EEXIST})
_PASSED_ON = "system.posix_acl_default"


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory of the layer, as unpacking left it."""

    path: Path
    status: os.stat_result
    is_implied: bool


def restore_implied_directories(
    files: Path, parents: Sequence[Path], window: tuple[int, int]
) -> None:
    """Put the implied directories of an unpacked layer right.

    Args:
        files: The layer's files.
        parents: Files of the layers below, nearest first.
        window: Times, in nanoseconds since 1970, between which the layer was unpacked.

    Raises:
        StagingUnsuitableError: A directory below passes attributes on to everything made in it,
            in a way that cannot be known afterwards.
        StorageError: A system call failed.
    """
    if not parents:
        return
    with translated("restore directories of", files):
        pending = [_Directory(files, files.lstat(), is_implied=False)]
        while pending:
            above = pending.pop()
            for directory in _iter_below(above, window):
                if directory.is_implied:
                    _restore(directory, above, files, parents)
                pending.append(directory)


def _iter_below(above: _Directory, window: tuple[int, int]) -> Iterator[_Directory]:
    with os.scandir(above.path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        status = (above.path / name).lstat()
        yield _Directory(above.path / name, status, _was_made(status, above.status, window))


def _was_made(status: os.stat_result, above: os.stat_result, window: tuple[int, int]) -> bool:
    return (
        stat.S_IMODE(status.st_mode) == _MADE_MODE
        and status.st_uid == 0
        and status.st_gid in {0, _group_within(above)}
        and window[0] <= status.st_mtime_ns <= window[1]
    )


def _group_within(status: os.stat_result) -> int:
    """The group of what root makes in a directory."""
    return status.st_gid if status.st_mode & stat.S_ISGID else 0


def _restore(
    directory: _Directory, above: _Directory, files: Path, parents: Sequence[Path]
) -> None:
    model = _find(directory.path.relative_to(files).parts, parents)
    if model is not None:
        _copy_attributes(model, directory.path)
    elif above.is_implied:
        # What is above has got its group only now, and would have passed it on.
        os.chown(directory.path, 0, _group_within(above.path.lstat()), follow_symlinks=False)
    elif above.path != files:
        _require_known_group(above, files, parents)


def _require_known_group(above: _Directory, files: Path, parents: Sequence[Path]) -> None:
    """Refuse where the group depends on which entry came first: the directory's or one in it."""
    model = _find(above.path.relative_to(files).parts, parents)
    if model is not None and _group_within(model.lstat()):
        message = f"{str(above.path)!r} may have passed on the group of {str(model)!r}"
        raise StagingUnsuitableError(message)


def _find(parts: Sequence[str], parents: Sequence[Path]) -> Path | None:
    """Look the directory up in the layers below; the nearest that has the name decides."""
    for parent in parents:
        try:
            found = _resolve(parent, parts)
            mode = found.lstat().st_mode
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            return None
        return found if stat.S_ISDIR(mode) else None
    return None


def _resolve(root: Path, parts: Sequence[str]) -> Path:
    """Follow a path with its symbolic links, none of which leads out of ``root``."""
    pending = list(reversed(parts))
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            del resolved[-1:]
            continue
        path = root.joinpath(*resolved, part)
        if not path.is_symlink():
            # Raises where a name of the middle is missing or no directory.
            if pending:
                (path / ".").lstat()
            resolved.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise FileNotFoundError(path)
        target = str(path.readlink())
        if target.startswith("/"):
            resolved.clear()
        pending.extend(reversed([each for each in target.split("/") if each not in {"", "."}]))
    return root.joinpath(*resolved)


def _copy_attributes(model: Path, path: Path) -> None:
    status = model.lstat()
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    path.chmod(stat.S_IMODE(status.st_mode))
    names = os.listxattr(model, follow_symlinks=False)
    if _PASSED_ON in names:
        message = f"{str(model)!r} passes an access control list on to what is made in it"
        raise StagingUnsuitableError(message)
    for name in names:
        # Those of the overlay belong to the layer that has them.
        if not name.startswith("trusted."):
            _copy_attribute(model, path, name)


def _copy_attribute(model: Path, path: Path, name: str) -> None:
    try:
        value = os.getxattr(model, name, follow_symlinks=False)
        os.setxattr(path, name, value, os.XATTR_CREATE, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNAVAILABLE:
            raise
