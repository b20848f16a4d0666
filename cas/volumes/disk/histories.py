"""Where the history of a disk volume is: in a directory of its own beside the volume's record.

The directory is there while there is anything to know: a disk without snapshots, with which nothing
is going on, has none. Copies of the disk lie in it as well. Reading trusts nothing.
"""

__all__ = ["has_history", "is_settled", "read_history", "remove_history", "write_history"]

from datetime import datetime
from typing import Annotated

import msgspec

from cas.errors import CorruptVolumeError, InvalidNameError
from cas.fsops.durable import is_temporary, make_directory, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.disk.history import FIRST_NUMBER, MAX_DISK_SNAPSHOTS, DiskHistory, DiskSnapshot
from cas.model.layout import DiskPaths
from cas.model.volume_layers import check_snapshot_name

_FORMAT_VERSION = 1
_MAX_BYTES = 256 * 1024
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600

_Number = Annotated[int, msgspec.Meta(ge=FIRST_NUMBER, le=2**53)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Snapshot(msgspec.Struct, kw_only=True):
    name: str
    number: _Number
    created: datetime
    allocated: _Bytes


class _Document(msgspec.Struct, kw_only=True):
    """The history as it is written; unknown keys of later releases are ignored."""

    format_version: int
    snapshots: Annotated[list[_Snapshot], msgspec.Meta(max_length=MAX_DISK_SNAPSHOTS)]
    next_number: _Number
    doomed: list[_Number]
    restoring: _Number | None
    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


def has_history(paths: DiskPaths) -> bool:
    """Whether the disk has snapshots, or something was going on with them; asks the name alone."""
    with translated("inspect", paths.snapshots):
        return paths.snapshots.is_dir()


def is_settled(paths: DiskPaths) -> bool:
    """Whether nothing was interrupted, temporary files included.

    Raises:
        CorruptVolumeError: The history cannot be read.
    """
    if not has_history(paths):
        return True
    history = read_history(paths)
    with translated("list", paths.snapshots):
        names = [each.name for each in paths.snapshots.iterdir()]
    return history.settled and bool(history.snapshots) and not any(map(is_temporary, names))


def write_history(paths: DiskPaths, history: DiskHistory) -> None:
    """Write the history, durably and in one step; an empty one is removed.

    Raises:
        NoSpaceError: No room; the one before stays.
        StorageError: Any other failed system call.
    """
    if history.settled and not history.snapshots:
        remove_history(paths)
        return
    for directory in (paths.record.parent, paths.snapshots):
        make_directory(directory, mode=_DIRECTORY_MODE)
    write_file(paths.history, _encoded(history), mode=_FILE_MODE)


def remove_history(paths: DiskPaths) -> bool:
    """Remove the history and all copies; gives whether there was any. Idempotent."""
    if not has_history(paths):
        return False
    remove_tree(paths.snapshots)
    return True


def read_history(paths: DiskPaths) -> DiskHistory:
    """Read the history strictly; an empty one for a disk that has none.

    Raises:
        CorruptVolumeError: It is too large, malformed or of a later format.
    """
    try:
        with regular_file(paths.history) as file:
            raw = file.read(_MAX_BYTES + 1)
        document = msgspec.json.decode(raw[:_MAX_BYTES], type=_Document)
        history = _history(document)
    except FileNotFoundError:
        return DiskHistory()
    except OSError as error:
        raise _corrupt(paths, f"it cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, InvalidNameError, UnicodeDecodeError) as error:
        raise _corrupt(paths, f"it is malformed: {error}") from error
    if document.format_version > _FORMAT_VERSION:
        raise _corrupt(paths, f"format {document.format_version} is newer than {_FORMAT_VERSION}")
    return history


def _encoded(history: DiskHistory) -> bytes:
    document = _Document(
        format_version=_FORMAT_VERSION,
        snapshots=[
            _Snapshot(
                name=each.name,
                number=each.number,
                created=each.created,
                allocated=each.allocated,
            )
            for each in history.snapshots
        ],
        next_number=history.next_number,
        doomed=list(history.doomed),
        restoring=history.restoring,
        token=history.token,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"


def _history(document: _Document) -> DiskHistory:
    if any(each.created.tzinfo is None for each in document.snapshots):
        raise InvalidNameError("a time has no zone")
    numbers = [each.number for each in document.snapshots]
    names = {each.name for each in document.snapshots}
    if len({*numbers, *document.doomed}) < len(numbers) + len(document.doomed) or (
        len(names) < len(numbers)
    ):
        raise InvalidNameError("a number or a name is there twice")
    if max(numbers, default=0) >= document.next_number:
        raise InvalidNameError("the number of the next state is in use")
    if document.restoring not in {None, *numbers, *document.doomed}:
        raise InvalidNameError("the state to return to is not there")
    return DiskHistory(
        snapshots=tuple(
            DiskSnapshot(check_snapshot_name(each.name), each.number, each.created, each.allocated)
            for each in document.snapshots
        ),
        next_number=document.next_number,
        doomed=tuple(document.doomed),
        restoring=document.restoring,
        token=document.token,
    )


def _corrupt(paths: DiskPaths, reason: str) -> CorruptVolumeError:
    return CorruptVolumeError(
        f"the snapshots of volume {paths.name} cannot be used because of {str(paths.history)!r}: "
        f"{reason}; restore the file, or remove its directory to give the snapshots up",
        name=paths.name,
        path=paths.history,
    )
