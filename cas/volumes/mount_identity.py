"""Whether a mount in the mount table is the one that a snapshot describes.

By what it shows, not by its name: the same upper directory, the same lower directories, or for a
bind mount the same inode.
"""

__all__ = ["is_mount_of"]

import re
from collections.abc import Sequence
from pathlib import Path

from cas.fsops.mounts import MountPoint
from cas.model.records import Mount

_LOWER = re.compile(
    r"(?:^|,)lowerdir\+?=(.*?)(?=,(?:lowerdir\+?|datadir\+?|upperdir)=|$)", re.DOTALL
)
_SNAPSHOT = re.compile(r"(\d+)/fs(?=[:,]|$)")


def is_mount_of(point: MountPoint, mounts: Sequence[Mount]) -> bool:
    """Whether ``point`` shows what ``mounts`` describe."""
    if len(mounts) != 1:
        return False
    mount = mounts[0]
    if mount.type == "bind":
        return _same_directory(point.path, Path(mount.source))
    if mount.type != "overlay" or point.fs_type != "overlay":
        return False
    upper, mounted_upper = mount.option("upperdir"), point.option("upperdir")
    if upper is not None or mounted_upper is not None:
        return upper == mounted_upper
    return _lower_snapshots(point.raw_options) == _SNAPSHOT.findall(mount.option("lowerdir") or "")


def _lower_snapshots(options: str) -> list[str]:
    """Numbers of the snapshots below; their paths may be relative, as mounting chose."""
    numbers: list[str] = []
    for lower in _LOWER.findall(options):
        numbers.extend(_SNAPSHOT.findall(lower))
    return numbers


def _same_directory(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
