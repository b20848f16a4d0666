"""What conversions have done, and were about to do; on the device before it is done.

A line per step, as JSON. ``intended`` stands before the one rename that makes a target, or before
a removal: with it, a later run tells its own complete copy from somebody else's file. ``done``
stands after the source is gone, and for ever: with it, what older software makes again is told
from what was never converted. A line that cannot be read counts as missing, which makes a later
run more careful and never less.
"""

__all__ = ["Entry", "Journal", "Step", "as_numbers", "as_text"]

import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from cas.errors import InvalidNameError, StorageError
from cas.fsops.appended import AppendedFile, read_lines
from cas.upgrade.items import Identity

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 1024


class Step(StrEnum):
    """How far a conversion is."""

    BEGUN = "begun"
    """Nothing yet: the first line of a journal."""
    INTENDED = "intended"
    UNDONE = "undone"
    DONE = "done"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line.

    Args:
        step: How far it is.
        time: RFC 3339.
        kind: What it was.
        source: Path below the persist directory, as text.
        target: Likewise; empty for what is removed.
        action: What is done.
        reason: Why.
        identity: Which file the source was.
        inode: Of the target.
        size: Allocated bytes.
        digest_before: Of the source's content.
        digest_after: Of the target's.
    """

    step: Step
    time: str
    kind: str = ""
    source: str = ""
    target: str = ""
    action: str = ""
    reason: str = ""
    identity: tuple[int, int, int] = (0, 0, 0)
    inode: int = 0
    size: int = 0
    digest_before: str = ""
    digest_after: str = ""


class Journal:
    """The journal of one persist directory; leaving its ``with`` block closes it.

    Args:
        path: Its file.
        writing: Whether lines are to be added; the file is made then. Its directory exists.

    Raises:
        NoSpaceError: No room.
        StorageError: A system call failed.
    """

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._file = AppendedFile(path) if writing else None
        self._entries: dict[tuple[str, str], Entry] = {}
        self._converted: set[str] = set()
        for line in read_lines(path, _MAX_LINE_BYTES):
            try:
                self._remember(_decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, InvalidNameError):
                _log.warning("line of the journal unreadable path=%s", path)

    def add(self, entry: Entry) -> None:
        """Make a line durable.

        Raises:
            NoSpaceError: No room; nothing was noted.
            StorageError: Any other failed system call; also if it was not opened for writing.
        """
        if self._file is None:
            message = f"the journal {str(self._path)!r} is open to read only"
            raise StorageError(message, path=self._path)
        self._file.append(msgspec.json.encode(entry))
        self._remember(entry)

    @property
    def is_new(self) -> bool:
        """Whether nothing was noted yet."""
        return not self._entries

    def find(self, source: str, target: str) -> Entry | None:
        """Give the last line about a source that is to become a target."""
        return self._entries.get((source, target))

    def entries(self) -> list[Entry]:
        """Give the last line about each source and target, in the order of their first ones."""
        return [entry for entry in self._entries.values() if entry.source]

    def converted(self, target: str) -> bool:
        """Whether a conversion to a target was ever completed."""
        return target in self._converted

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.source, entry.target] = entry
        if entry.step is Step.DONE and entry.target:
            self._converted.add(entry.target)


def _decode(line: bytes) -> Entry:
    entry = msgspec.json.decode(line, type=Entry)
    for path in (entry.source, entry.target):
        if "\0" in path or path.startswith("/") or ".." in path.split("/"):
            raise InvalidNameError(f"{path!r} is no path below the persist directory")
    return entry


def as_text(path: Path | str) -> str:
    """Give a path, or what has one in it, as text that any file can hold; not all names are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_numbers(identity: Identity) -> tuple[int, int, int]:
    """Give an identity as it is noted."""
    return (identity.inode, identity.size, identity.modified)
