"""What lies in the directories of volumes, told apart by name and kind; changes nothing.

A directory with a volume's name is a complete container volume, a regular file a complete disk
volume. A hidden name is a preparation or a removal that has not ended. Everything else is somebody
else's.
"""

__all__ = [
    "Leftover",
    "LeftoverKind",
    "iter_foreign",
    "iter_leftovers",
    "iter_names",
    "iter_suffixed",
    "require_free",
    "stands",
]

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cas.errors import InvalidNameError, VolumeConflictError
from cas.fsops.durable import is_temporary
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.volumes.entries import list_entries
from cas.volumes.status import ForeignEntry

_FORMATS = frozenset({"raw", "qcow", "qcow2", "vhd", "vmdk", "ova", "vhdx", "container", "iso"})


class LeftoverKind(StrEnum):
    """What was going on when a hidden entry was made."""

    PREPARING = "preparing"
    REFORMATTING = "reformatting"
    """Disks only."""
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A directory, or a disk, of an operation that runs or was interrupted.

    Args:
        kind: Which operation.
        name: The volume.
        path: Where it is.
        is_disk: Whether it is a disk.
    """

    kind: LeftoverKind
    name: VolumeName
    path: Path
    is_disk: bool


def require_free(layout: Layout, name: VolumeName, *, wanted: str) -> None:
    """Return if nothing has a volume's name, in the vault or in clear.

    Args:
        layout: Where volumes are.
        name: Of a volume that is to be made.
        wanted: What it is to be, for the message.

    Raises:
        VolumeConflictError: Something has it.
    """
    for clear in (False, True):
        path = layout.disk(name, clear=clear).file
        if os.path.lexists(path):
            raise VolumeConflictError(
                f"{str(path)!r} exists and is not a {wanted} volume; use another name",
                name=name,
                path=path,
            )


def stands(layout: Layout, name: VolumeName) -> bool:
    """Whether the container volume exists: a directory, not followed, has its final name."""
    directory = layout.volume(name)
    return directory.is_dir() and not directory.is_symlink()


def iter_names(layout: Layout) -> Iterator[VolumeName]:
    """Stream the names of complete container volumes, sorted; none without a directory."""
    names = (_parse(entry) for entry, mode in list_entries(layout.volumes) if stat.S_ISDIR(mode))
    yield from sorted(name for name in names if name is not None)


def iter_leftovers(layout: Layout) -> Iterator[Leftover]:
    """Stream what operations that run or were interrupted have made, in both directories."""
    for directory in _directories(layout):
        for entry, mode in list_entries(directory):
            leftover = _leftover(directory, entry, mode)
            if leftover is not None:
                yield leftover


def iter_foreign(layout: Layout) -> Iterator[ForeignEntry]:
    """Stream what is neither a volume nor a leftover of ours, in both directories."""
    ours = {layout.disk_records(clear=clear) for clear in (False, True)}
    for directory in _directories(layout):
        for entry, mode in list_entries(directory):
            path = directory / entry
            if is_temporary(entry) or path in ours or _leftover(directory, entry, mode):
                continue
            reason = _foreignness(entry, mode, clear=directory == layout.clear_volumes)
            if reason:
                yield ForeignEntry(path, reason)


def iter_suffixed(layout: Layout) -> Iterator[ForeignEntry]:
    """Stream the volumes among them that carry a format in their name, as EVE gives it."""
    for entry in iter_foreign(layout):
        if _suffixed(entry.path.name) is not None:
            yield entry


def _directories(layout: Layout) -> tuple[Path, Path]:
    return layout.volumes, layout.clear_volumes


def _foreignness(entry: str, mode: int, *, clear: bool) -> str:
    """Say why an entry is no volume; empty if it is one."""
    if _parse(entry) is None:
        return _explain(entry)
    if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not clear):
        return ""
    if stat.S_ISDIR(mode):
        return "a directory, and container volumes are never in clear"
    return "neither a directory nor a regular file, so no volume"


def _parse(text: str) -> VolumeName | None:
    try:
        return VolumeName.parse(text)
    except InvalidNameError:
        return None


def _leftover(directory: Path, entry: str, mode: int) -> Leftover | None:
    head, _, kind = entry.rpartition(".")
    name = _parse(head.removeprefix("."))
    if name is None or kind not in set(LeftoverKind) or entry != f".{name}.{kind}":
        return None
    return Leftover(LeftoverKind(kind), name, directory / entry, is_disk=stat.S_ISREG(mode))


def _explain(entry: str) -> str:
    suffixed = _suffixed(entry)
    if suffixed is None:
        return "not the name of a volume"
    name, suffix = suffixed
    return f"volume {name} as older releases name it, format {suffix}"


def _suffixed(entry: str) -> tuple[VolumeName, str] | None:
    """Split a name that older releases gave; None for any other."""
    stem, _, suffix = entry.partition(".")
    name = _parse(stem)
    return None if name is None or suffix not in _FORMATS else (name, suffix)
