"""What merges of stores have brought and what they left, for the report and for later plans.

A line per thing and change: what every start finds as it was before is noted once. There are too
many for a sync each, or to be kept in memory. Blobs are noted before the first of them goes from
where it was; what became of things is noted some thousands together, and before their store goes.
After a kill the next merge tells of the rest again: of what is still there, and of blobs whose
files are gone from what the store has. Who asks what was noted last gets it from the file, read
once for as many things as memory may hold. A line that cannot be read or written is only missing in
the report; but a store of which something could not be noted stays until the next merge.
"""

__all__ = ["MergeAccount", "account_bytes"]

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
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
from cas.upgrade.merge_entry import MergeEntry, MergeKey
from cas.upgrade.merged import MergedKind

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES = 64 * 1024
_BATCH = 2048
"""Things that are noted or looked up at a time."""
_PART_BYTES = 2 * 1024 * 1024
"""Of the file, whose things are remembered at a time."""
_DECODER = msgspec.json.Decoder(MergeEntry)
_EXPECTED = "not taken in yet"
_LOST = "its file is gone, and the store lacks it"


def account_bytes(path: Path) -> int:
    """Tell how long an account is by now; nothing if there is none.

    Raises:
        StorageError: A system call failed.
    """
    with translated("inspect", path):
        return path.stat().st_size if path.exists() else 0


class MergeAccount:
    """The account of one persist directory; leaving its ``with`` block notes the rest and closes.

    Its memory does not grow with the number of things.

    Args:
        path: Its file; made with the first line that is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: AppendedFile | None = None
        self._stack = ExitStack()
        self._noted: dict[MergeKey, MergeEntry] = {}
        self._is_damaged = False
        self._failure: CasError | None = None

    def expect(self, store: str, paths: Iterable[Path], *, time: str) -> None:
        """Note durably, before any of them goes, files of blobs that are to come in; log a failure.

        Args:
            store: That they are in; empty for verified downloads.
            paths: The files.
            time: RFC 3339.
        """
        self.flush()
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
        while batch := list(islice(expected, _BATCH)):
            self._append(batch, lambda _, known: known is None or known.came_in)

    def note(self, entry: MergeEntry) -> None:
        """Note it, unless the last entry about it says the same; durable after a :meth:`flush`."""
        self._noted[entry.key] = entry
        if len(self._noted) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Make durable what was noted; a failure is logged."""
        noted, self._noted = self._noted, {}
        self._append(noted.values(), lambda entry, known: known is None or not known.says(entry))

    def require_written(self) -> None:
        """Make durable what was noted, before what it tells of goes.

        Raises:
            NoSpaceError: Something could not be noted, now or earlier: there was no room.
            StorageError: That, by any other failed system call.
        """
        self.flush()
        if self._failure is not None:
            raise self._failure

    def settle(self, missing: Callable[[Iterable[Digest]], Iterable[Digest]], *, time: str) -> None:
        """Note which blobs came in without a note: their files are gone, and the store has them.

        Args:
            missing: Tells which of some blobs the store lacks.
            time: RFC 3339.

        Raises:
            UnavailableError: containerd does not answer.
            StorageError: The account cannot be read.
        """
        self.flush()
        gone = (
            entry
            for entry in self.entries()
            if entry.kind == MergedKind.BLOB.value
            and not entry.came_in
            and not os.path.lexists(entry.name)
        )
        while batch := list(islice(gone, _BATCH)):
            self._settle(batch, missing, time)

    def _settle(
        self,
        entries: Iterable[MergeEntry],
        missing: Callable[[Iterable[Digest]], Iterable[Digest]],
        time: str,
    ) -> None:
        gone = []
        for entry in entries:
            with suppress(InvalidNameError):
                gone.append((Digest(Path(entry.name).name), entry))
        lost = frozenset(missing([digest for digest, _ in gone]))
        for digest, entry in gone:
            result, why = (Result.FAILED, _LOST) if digest in lost else (Result.MOVED, "")
            self.note(
                msgspec.structs.replace(
                    entry, result=result.value, reason="", explanation=why, time=time
                )
            )
        self.flush()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected that was not told of since."""
        return all(entry.explanation != _EXPECTED for entry in self.entries())

    def entries(self) -> Iterator[MergeEntry]:
        """Give the last durable entry about each thing, those about some after each other.

        Raises:
            StorageError: It cannot be read.
        """
        parts = account_bytes(self._path) // _PART_BYTES + 1
        for part in range(parts):
            last = {entry.key: entry for entry in self._lines() if hash(entry.key) % parts == part}
            yield from last.values()

    def why_left(self, store: Path) -> str:
        """Tell what keeps an old store since its last merge; empty if it was not merged yet.

        Raises:
            StorageError: It cannot be read.
        """
        path = as_text(store)
        key = (path, MergedKind.STORE.value, path)
        entry = self._last([key]).get(key)
        if entry is None or entry.came_in:
            return ""
        return entry.explanation

    def _append(
        self,
        entries: Collection[MergeEntry],
        is_news: Callable[[MergeEntry, MergeEntry | None], bool],
    ) -> None:
        """Note together what is new beside the last entry about the same."""
        try:
            known = self._last({entry.key for entry in entries})
            news = [entry for entry in entries if is_news(entry, known.get(entry.key))]
            if news:
                self._opened().append(b"\n".join(map(msgspec.json.encode, news)))
        except CasError as error:
            self._failure = error
            _log.warning("account of merges not written path=%s error=%s", self._path, error)

    def _opened(self) -> AppendedFile:
        if self._file is None:
            make_directory(self._path.parent, mode=0o700)
            self._file = self._stack.enter_context(AppendedFile(self._path))
        return self._file

    def _last(self, keys: Collection[MergeKey]) -> dict[MergeKey, MergeEntry]:
        """Give the last entry about each of some things."""
        if not keys:
            return {}
        return {entry.key: entry for entry in self._lines() if entry.key in keys}

    def _lines(self) -> Iterator[MergeEntry]:
        for line in read_lines(self._path, _MAX_LINE_BYTES):
            try:
                yield _DECODER.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                if not self._is_damaged:
                    _log.warning("line of the account of merges unreadable path=%s", self._path)
                self._is_damaged = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.flush()
