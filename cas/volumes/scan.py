"""What lies in the volumes directory, told apart by name and kind; changes nothing.

A directory with a volume's name is a complete volume. A hidden name is a preparation or a removal
that has not ended. Everything else is somebody else's.
"""

__all__ = ["Leftover", "LeftoverKind", "iter_foreign", "iter_leftovers", "iter_names", "stands"]

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cas.errors import InvalidNameError
from cas.fsops.durable import is_temporary
from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.volumes.status import ForeignEntry

_FORMATS = frozenset({"raw", "qcow", "qcow2", "vhd", "vmdk", "ova", "vhdx", "container", "iso"})


class LeftoverKind(StrEnum):
    """What was going on when a hidden directory was made."""

    PREPARING = "preparing"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A directory of an operation that runs or was interrupted.

    Args:
        kind: Which operation.
        name: The volume.
        path: The directory.
    """

    kind: LeftoverKind
    name: VolumeName
    path: Path


def stands(layout: Layout, name: VolumeName) -> bool:
    """Whether the container volume exists: a directory, not followed, has its final name."""
    directory = layout.volume(name)
    return directory.is_dir() and not directory.is_symlink()


def iter_names(layout: Layout) -> Iterator[VolumeName]:
    """Stream the names of complete container volumes, sorted; none without a directory."""
    for entry, mode in _entries(layout):
        name = _parse(entry)
        if name is not None and stat.S_ISDIR(mode):
            yield name


def iter_leftovers(layout: Layout) -> Iterator[Leftover]:
    """Stream the directories of operations that run or were interrupted."""
    for entry, _ in _entries(layout):
        leftover = _leftover(layout, entry)
        if leftover is not None:
            yield leftover


def iter_foreign(layout: Layout) -> Iterator[ForeignEntry]:
    """Stream what is neither a volume nor a leftover of ours."""
    for entry, mode in _entries(layout):
        if is_temporary(entry) or _leftover(layout, entry) is not None:
            continue
        if _parse(entry) is None:
            yield ForeignEntry(layout.volumes / entry, _explain(entry))
        elif not stat.S_ISDIR(mode):
            yield ForeignEntry(layout.volumes / entry, "not a directory, so no container volume")


def _entries(layout: Layout) -> list[tuple[str, int]]:
    """Give names and modes, sorted; an entry that vanishes meanwhile is left out."""
    found = []
    with translated("list", layout.volumes):
        try:
            entries = os.scandir(layout.volumes)
        except FileNotFoundError:
            return []
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mode))
    return sorted(found)


def _parse(text: str) -> VolumeName | None:
    try:
        return VolumeName.parse(text)
    except InvalidNameError:
        return None


def _leftover(layout: Layout, entry: str) -> Leftover | None:
    head, _, kind = entry.rpartition(".")
    name = _parse(head.removeprefix("."))
    if name is None or kind not in set(LeftoverKind):
        return None
    path = layout.volumes / entry
    expected = {
        LeftoverKind.PREPARING: layout.volume_preparing(name),
        LeftoverKind.REMOVING: layout.volume_removing(name),
    }[LeftoverKind(kind)]
    return Leftover(LeftoverKind(kind), name, path) if path == expected else None


def _explain(entry: str) -> str:
    stem, _, suffix = entry.partition(".")
    if _parse(stem) is not None and suffix in _FORMATS:
        return f"volume {stem} as older releases name it, format {suffix}"
    return "not the name of a volume"
