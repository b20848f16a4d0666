"""Gives directories that a layer only implies the attributes they have in the layers below.

A layer may hold ``tmp/x`` without an entry for ``tmp``. containerd then makes ``tmp`` and copies
owner, mode and extended attributes from the parents that it is shown. Unpacked away from its
parents the directory has mode 0755 and belongs to root, and ``/tmp`` would lose its sticky bit.
Here they are found and put right, exactly as containerd would have done it.

An entry's own directory gets the time of change that the layer says, so that one which has mode
0755, belongs to root and changed while the layer was unpacked is an implied one.
"""

__all__ = ["restore_implied_directories"]

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from cas.fsops.translation import translated

_MADE_MODE = 0o755
_MOST_LINKS = 255
_UNAVAILABLE = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EEXIST})


def restore_implied_directories(
    files: Path, parents: Sequence[Path], window: tuple[int, int]
) -> int:
    """Put the implied directories of an unpacked layer right; idempotent.

    Args:
        files: The layer's files.
        parents: Files of the layers below, nearest first.
        window: Times, in nanoseconds since 1970, between which the layer was unpacked.

    Returns:
        How many directories got attributes of a parent.

    Raises:
        StorageError: A system call failed.
    """
    if not parents:
        return 0
    count = 0
    with translated("restore directories of", files):
        for path in _implied(files, window):
            model = _find(path.relative_to(files).parts, parents)
            if model is not None:
                _copy_attributes(model, path)
                count += 1
    return count


def _implied(files: Path, window: tuple[int, int]) -> Iterator[Path]:
    pending = [files]
    while pending:
        with os.scandir(pending.pop()) as entries:
            found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            path = Path(entry.path)
            pending.append(path)
            if _was_made(status, window):
                yield path


def _was_made(status: os.stat_result, window: tuple[int, int]) -> bool:
    return (
        stat.S_IMODE(status.st_mode) == _MADE_MODE
        and (status.st_uid, status.st_gid) == (0, 0)
        and window[0] <= status.st_mtime_ns <= window[1]
    )


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
                os.stat(path / ".", follow_symlinks=False)
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
    for name in os.listxattr(model, follow_symlinks=False):
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
