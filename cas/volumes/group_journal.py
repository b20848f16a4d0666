"""What is being done to the snapshots of several volumes at once, durable while it is done.

A small file per group in progress. One that a kill left tells recovery what to undo or to finish.
"""

__all__ = [
    "Group",
    "GroupAction",
    "iter_groups",
    "note_group",
    "read_group",
    "remove_group",
    "strike_volume",
]

import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import msgspec

from cas.errors import InvalidNameError
from cas.fsops.durable import (
    is_temporary,
    make_directory,
    remove_file,
    remove_temporaries,
    write_file,
)
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.model.volume_layers import check_snapshot_name
from cas.model.volume_name import VolumeName

_LOGGER = logging.getLogger(__name__)

_FORMAT_VERSION = 1
_MAX_BYTES = 1024 * 1024


class GroupAction(StrEnum):
    """What is done to all volumes of the group, or to none."""

    CREATE = "create"
    """Undone by recovery unless it was done to all."""
    ROLL_BACK = "roll-back"
    """Finished by recovery."""


@dataclass(frozen=True, slots=True)
class Group:
    """One operation on several volumes.

    Args:
        action: Which.
        snapshot: Name of the snapshot in each of them.
        drop_later: Of a rollback: snapshots that were taken later go.
        before: Volume to the key that its writable layer had before.
    """

    action: GroupAction
    snapshot: str
    drop_later: bool
    before: Mapping[VolumeName, str]


class _Document(msgspec.Struct, kw_only=True):
    format_version: int
    action: GroupAction
    snapshot: str
    drop_later: bool
    before: dict[str, str]


def note_group(layout: Layout, group: Group) -> Path:
    """Note that the group is being worked on, durably, until :func:`remove_group`.

    Raises:
        NoSpaceError: No room for the note.
    """
    make_directory(layout.volume_groups, mode=0o700, parents=True)
    path = layout.volume_groups / f"{secrets.token_hex(8)}.json"
    _write(path, group)
    return path


def strike_volume(path: Path, name: VolumeName) -> None:
    """Take a volume out of a noted group, durably. Idempotent.

    Raises:
        NoSpaceError: No room for the note; the one before stays.
    """
    group = read_group(path)
    if group is None or name not in group.before:
        return
    left = {each: key for each, key in group.before.items() if each != name}
    if left:
        _write(path, replace(group, before=left))
    else:
        remove_group(path)


def remove_group(path: Path) -> None:
    """Remove the note of a group, durably. Idempotent."""
    remove_file(path)


def iter_groups(layout: Layout) -> Iterator[tuple[Path, Group]]:
    """Yield the notes that are there; one that cannot be read is left alone with a warning."""
    directory = layout.volume_groups
    if not directory.is_dir():
        return
    remove_temporaries(directory)
    with translated("list", directory):
        paths = sorted(path for path in directory.iterdir() if not is_temporary(path.name))
    for path in paths:
        if (group := read_group(path)) is not None:
            yield path, group


def read_group(path: Path) -> Group | None:
    """Read a note; None with a warning if it cannot be, and without one if it is gone."""
    try:
        with regular_file(path) as file:
            return _group(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None  # its owner has just finished
    except (OSError, msgspec.MsgspecError, InvalidNameError) as error:
        _LOGGER.warning("note of a group unreadable path=%s error=%s", path, error)
        return None


def _write(path: Path, group: Group) -> None:
    document = _Document(
        format_version=_FORMAT_VERSION,
        action=group.action,
        snapshot=group.snapshot,
        drop_later=group.drop_later,
        before={str(name): key for name, key in group.before.items()},
    )
    write_file(path, msgspec.json.encode(document) + b"\n")


def _group(raw: bytes) -> Group:
    document = msgspec.json.decode(raw, type=_Document)
    if document.format_version != _FORMAT_VERSION:
        message = f"format {document.format_version} is not {_FORMAT_VERSION}"
        raise InvalidNameError(message)
    return Group(
        action=document.action,
        snapshot=check_snapshot_name(document.snapshot),
        drop_later=document.drop_later,
        before={VolumeName.parse(name): key for name, key in document.before.items()},
    )
