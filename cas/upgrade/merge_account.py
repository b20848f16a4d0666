"""What merges of stores have brought and what they left, for the report and for later plans.

A line per thing and change: what every start finds as it was before is noted once. Of blobs there
are too many for a sync each. They are noted together, before the first of them goes from where it
was; that they came in is noted together as well, and after a kill found out from what is there. A
line that cannot be read or written is only missing in the report: it decides nothing.
"""

__all__ = ["MergeAccount", "MergeEntry", "account_bytes", "merge_document"]

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import msgspec

from cas.errors import CasError, InvalidNameError
from cas.fsops.appended import AppendedFile, read_lines
from cas.fsops.durable import make_directory
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.upgrade.items import Result
from cas.upgrade.journal import as_text
from cas.upgrade.merged import Merged, MergedKind

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 1024
_EXPECTED = "not taken in yet"
_LOST = "its file is gone, and the store lacks it"


class MergeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one thing.

    Args:
        time: RFC 3339, when that changed last.
        store: Path of the old store; empty for a verified download.
        kind: See :class:`cas.upgrade.merged.MergedKind`.
        name: An image's name, a snapshot's key, or the path of a blob or of a store.
        result: See :class:`cas.upgrade.items.Result`.
        reason: Reference of the error, if it failed.
        explanation: Why it is not in the newer store, or why it went.
    """

    time: str
    store: str
    kind: str
    name: str
    result: str
    reason: str = ""
    explanation: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Which thing it is about."""
        return self.store, self.kind, self.name

    @property
    def came_in(self) -> bool:
        """Whether it is in the newer store."""
        return self.result == Result.MOVED.value

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
    """The account of one persist directory; leaving its ``with`` block notes the rest and closes.

    Args:
        path: Its file; made with the first line that is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: AppendedFile | None = None
        self._stack = ExitStack()
        self._entries: dict[tuple[str, str, str], MergeEntry] = {}
        self._late: list[MergeEntry] = []
        for line in read_lines(path, _MAX_LINE_BYTES):
            try:
                entry = msgspec.json.decode(line, type=MergeEntry)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                _log.warning("line of the account of merges unreadable path=%s", path)
            else:
                self._entries[entry.key] = entry

    def expect(self, store: str, paths: Iterable[Path], *, time: str) -> None:
        """Note durably, before any of them goes, files of blobs that are to come in; log a failure.

        Args:
            store: That they are in; empty for verified downloads.
            paths: The files.
            time: RFC 3339.
        """
        expected = (
            MergeEntry(
                time=time,
                store=store,
                kind=MergedKind.BLOB.value,
                name=as_text(path),
                result=Result.LEFT.value,
                explanation=_EXPECTED,
            )
            for path in paths
        )
        self._append([each for each in expected if self._is_news(each)])

    def _is_news(self, expected: MergeEntry) -> bool:
        known = self._entries.get(expected.key)
        return known is None or known.came_in

    def note(self, entry: MergeEntry) -> None:
        """Note it durably, unless the last entry about it says the same; a failure is logged.

        That a blob came in which was expected is noted at the end, with that of the others.
        """
        known = self._entries.get(entry.key)
        if known is not None and msgspec.structs.replace(known, time=entry.time) == entry:
            return
        if known is not None and entry.kind == MergedKind.BLOB.value and entry.came_in:
            self._entries[entry.key] = entry
            self._late.append(entry)
        else:
            self._append([entry])

    def settle(self, missing: Callable[[Iterable[Digest]], Iterable[Digest]], *, time: str) -> None:
        """Note which blobs came in without a note: their files are gone, and the store has them.

        Args:
            missing: Tells which of some blobs the store lacks.
            time: RFC 3339.

        Raises:
            UnavailableError: containerd does not answer.
        """
        gone: dict[Digest, MergeEntry] = {}
        for entry in self._entries.values():
            if entry.kind != MergedKind.BLOB.value or entry.came_in or os.path.lexists(entry.name):
                continue
            with suppress(InvalidNameError):
                gone[Digest(Path(entry.name).name)] = entry
        lost = [gone.pop(digest) for digest in missing(list(gone))]
        self._append(_changed(lost, Result.FAILED, _LOST, time))
        self._append(_changed(gone.values(), Result.MOVED, "", time))

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected that was not told of since."""
        return all(entry.explanation != _EXPECTED for entry in self._entries.values())

    def _append(self, entries: Iterable[MergeEntry]) -> None:
        """Note them together."""
        lines = []
        for entry in entries:
            self._entries[entry.key] = entry
            lines.append(msgspec.json.encode(entry))
        if not lines:
            return
        try:
            if self._file is None:
                make_directory(self._path.parent, mode=0o700)
                self._file = self._stack.enter_context(AppendedFile(self._path))
            self._file.append(b"\n".join(lines))
        except CasError as error:
            _log.warning("account of merges not written path=%s error=%s", self._path, error)

    def entries(self) -> Iterator[MergeEntry]:
        """Give the last entry about each thing, in the order of their first ones."""
        return iter(self._entries.values())

    def why_left(self, store: Path) -> str:
        """Tell what keeps an old store since its last merge; empty if it was not merged yet."""
        path = as_text(store)
        entry = self._entries.get((path, MergedKind.STORE.value, path))
        if entry is None or entry.came_in:
            return ""
        return entry.explanation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._append(self._late)


def _changed(
    entries: Iterable[MergeEntry], result: Result, explanation: str, time: str
) -> list[MergeEntry]:
    """Give those that now say something else."""
    return [
        msgspec.structs.replace(
            entry, result=result.value, reason="", explanation=explanation, time=time
        )
        for entry in entries
        if (entry.result, entry.explanation) != (result.value, explanation)
    ]
