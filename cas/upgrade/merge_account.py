"""What merges of stores have brought and what they left, for the report and for later plans.

A line per thing and change: what every start finds as it was before is noted once. Blobs that came
in are counted, by store: there are too many for a line and a sync each. A line that cannot be read
or written, and a count that a kill prevents, is only missing in the report: it decides nothing.
"""

__all__ = ["MergeAccount", "MergeEntry", "account_bytes", "merge_document"]

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from cas.errors import CasError
from cas.fsops.appended import AppendedFile, read_lines
from cas.fsops.durable import make_directory
from cas.fsops.translation import translated
from cas.upgrade.items import Result
from cas.upgrade.journal import as_text
from cas.upgrade.merged import Merged, MergedKind

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 1024


class MergeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one thing.

    Args:
        time: RFC 3339, when that changed last.
        store: Path of the old store; empty for a verified download.
        kind: See :class:`cas.upgrade.merged.MergedKind`.
        name: An image's name, a snapshot's key, or the path of a blob or of a store; empty for
            the blobs that came in.
        result: See :class:`cas.upgrade.items.Result`.
        reason: Reference of the error, if it failed.
        explanation: Why it is not in the newer store.
        count: How many things it is about.
    """

    time: str
    store: str
    kind: str
    name: str
    result: str
    reason: str = ""
    explanation: str = ""
    count: int = 1

    @property
    def key(self) -> tuple[str, str, str]:
        """Which thing it is about."""
        return self.store, self.kind, self.name

    @classmethod
    def of(cls, merged: Merged, *, store: str, time: str) -> Self:
        """Give the entry about something."""
        return cls(
            time=time,
            store=store,
            kind=merged.kind.value,
            name=as_text(merged.name),
            result=merged.result.value,
            reason="" if merged.error is None else merged.error.reference,
            explanation=as_text(merged.explanation),
        )


def merge_document(entry: MergeEntry) -> dict[str, object]:
    """Give its JSON form."""
    return msgspec.structs.asdict(entry)


def account_bytes(path: Path) -> int:
    """Tell how long an account is by now; nothing if there is none.

    Raises:
        StorageError: A system call failed.
    """
    with translated("inspect", path):
        return path.stat().st_size if path.exists() else 0


class MergeAccount:
    """The account of one persist directory; leaving its ``with`` block notes counts and closes it.

    Args:
        path: Its file; made with the first line that is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: AppendedFile | None = None
        self._stack = ExitStack()
        self._entries: dict[tuple[str, str, str], MergeEntry] = {}
        self._counts: dict[str, MergeEntry] = {}
        for line in read_lines(path, _MAX_LINE_BYTES):
            try:
                entry = msgspec.json.decode(line, type=MergeEntry)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                _log.warning("line of the account of merges unreadable path=%s", path)
            else:
                self._entries[entry.key] = entry

    def note(self, entry: MergeEntry) -> None:
        """Note it durably, unless the last entry about it says the same; a failure is logged.

        A blob that came in is counted until the end, if nothing else was noted of it before.
        """
        came_in = entry.kind == MergedKind.BLOB.value and entry.result == Result.MOVED.value
        if came_in and entry.key not in self._entries:
            self._count(msgspec.structs.replace(entry, name=""))
        else:
            self._note(entry)

    def _count(self, blobs: MergeEntry) -> None:
        before = self._counts.get(blobs.store) or self._entries.get(blobs.key)
        count = blobs.count + (0 if before is None else before.count)
        self._counts[blobs.store] = msgspec.structs.replace(blobs, count=count)

    def _note(self, entry: MergeEntry) -> None:
        known = self._entries.get(entry.key)
        if known is not None and msgspec.structs.replace(known, time=entry.time) == entry:
            return
        self._entries[entry.key] = entry
        try:
            if self._file is None:
                make_directory(self._path.parent, mode=0o700)
                self._file = self._stack.enter_context(AppendedFile(self._path))
            self._file.append(msgspec.json.encode(entry))
        except CasError as error:
            _log.warning("account of merges not written name=%s error=%s", entry.name, error)

    def entries(self) -> Iterator[MergeEntry]:
        """Give the last entry about each thing, in the order of their first ones."""
        return iter(self._entries.values())

    def why_left(self, store: Path) -> str:
        """Tell what keeps an old store since its last merge; empty if it was not merged yet."""
        path = as_text(store)
        entry = self._entries.get((path, MergedKind.STORE.value, path))
        if entry is None or entry.result == Result.MOVED.value:
            return ""
        return entry.explanation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for counted in self._counts.values():
                self._note(counted)
