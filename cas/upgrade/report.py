"""The report of a run: what became of everything that lay in the old places, as JSON.

It accounts for earlier runs as well: what they converted is taken from the journal.
"""

__all__ = [
    "ReportFile",
    "Summary",
    "Tally",
    "document_of",
    "entry_document",
    "plan_document",
    "told_bytes",
]

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cas.errors import CasError, CheckpointError, ConflictError, StorageError
from cas.fsops.appended import read_lines
from cas.fsops.durable import publish
from cas.fsops.inode import StagedInode
from cas.upgrade.items import Action, Outcome, Planned, Reason, Result
from cas.upgrade.journal import Entry, as_text
from cas.upgrade.merge_entry import MergeEntry, merge_document

_FORMAT_VERSION = 1
_MAX_HEAD_BYTES = 4096
_BUFFER_BYTES = 64 * 1024
_IN_THE_WAY = frozenset(
    {
        Reason.FOREIGN_TARGET,
        Reason.VOLUME_TAKEN,
        Reason.STORE_NOT_CONVERTED,
        Reason.NO_DIGEST,
    }
)


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in short.

    Args:
        phase: What was run.
        started: RFC 3339.
        finished: Likewise.
        interrupted: Whether it was stopped before its end.
        checkpoint: The configuration that was read; empty if none could be.
        problem: Why none could be; empty otherwise.
        needed: Bytes that all copies needed at most at a time.
        free: Bytes that could be used for them.
    """

    phase: str
    started: str
    finished: str
    interrupted: bool
    checkpoint: str
    problem: str
    needed: int
    free: int


def plan_document(planned: Planned) -> dict[str, object]:
    """Give the JSON form of something planned."""
    return {
        "kind": planned.found.kind.value,
        "source": as_text(planned.found.path),
        "action": planned.action.value,
        "target": None if planned.target is None else as_text(planned.target),
        "volume": None if planned.volume is None else str(planned.volume),
        "reason": planned.reason.value,
        "explanation": planned.explanation,
        "size": planned.found.size,
        "needed": planned.needed,
    }


def document_of(outcome: Outcome) -> dict[str, object]:
    """Give the JSON form of what became of something."""
    return {
        **plan_document(outcome.planned),
        "result": outcome.result.value,
        "digest_before": outcome.digest_before or None,
        "digest_after": outcome.digest_after or None,
        "sockets": [as_text(path) for path in outcome.sockets],
        "flags_lost": [as_text(path) for path in outcome.flags_lost],
        "error": None if outcome.error is None else _error_document(outcome.error),
    }


def _error_document(error: CasError) -> dict[str, object]:
    """Give its form with names that are no text escaped: JSON has no other place for them."""
    details = {key: as_text(str(value)) for key, value in error.details.items()}
    return {**error.as_document(), "details": details}


def entry_document(entry: Entry) -> dict[str, object]:
    """Give the JSON form of what an earlier run did; paths are below the persist directory."""
    return {
        "kind": entry.kind,
        "source": entry.source,
        "action": entry.action,
        "target": entry.target or None,
        "reason": entry.reason,
        "size": entry.size,
        "digest_before": entry.digest_before or None,
        "digest_after": entry.digest_after or None,
        "time": entry.time,
    }


class Tally:
    """Counts what became of everything, and derives the exit status."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Result, 0)
        self.status = 0
        """That of the last failure, or of what stands in the way; else 0."""

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.result] += 1
        self.status = _status_of(outcome) or self.status


def _status_of(outcome: Outcome) -> int:
    if outcome.error is not None:
        return outcome.error.exit_code
    if outcome.planned.action is not Action.LEAVE:
        return 0
    if outcome.planned.reason is Reason.NO_CONFIG:
        return CheckpointError.exit_code
    return ConflictError.exit_code if outcome.planned.reason in _IN_THE_WAY else 0


class _Head(msgspec.Struct, frozen=True):
    account_bytes: int


def told_bytes(path: Path) -> int:
    """Tell how much of the account of merges a report tells of; -1 if that cannot be told.

    Raises:
        StorageError: It cannot be read.
    """
    head = next(read_lines(path, _MAX_HEAD_BYTES), b"")
    try:
        return msgspec.json.decode(head.removesuffix(b",") + b"}", type=_Head).account_bytes
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return -1


class ReportFile:
    """The report, written as the run goes on, under its name when it is whole.

    A failure to write is kept until the end: it must not keep anything from being converted.

    Args:
        path: Its name; its directory exists.
        account_bytes: How much of the account of merges it tells of at least.
    """

    def __init__(self, path: Path, *, account_bytes: int) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        # A line of its own, from which the next start learns that without reading the rest.
        head = b'{"format_version": %d, "account_bytes": %d,\n"items": ['
        self._pending = bytearray(head % (_FORMAT_VERSION, account_bytes))
        self._separator = b"\n"
        self._error: CasError | None = None
        self._file: StagedInode | None = None

    def add(self, outcome: Outcome) -> None:
        """Add what became of something."""
        self._add_document(document_of(outcome))

    def finish(
        self,
        summary: Summary,
        tally: Tally,
        earlier: Iterable[Entry],
        merged: Iterable[MergeEntry] = (),
    ) -> None:
        """Complete it and give it its name, durably.

        Raises:
            NoSpaceError: No room; the report of the run before is there.
            StorageError: Any other failed system call.
        """
        self._add_list("earlier", map(entry_document, earlier))
        self._add_list("merged", map(merge_document, merged))
        rest = msgspec.json.encode({**_summary_document(summary), **_tally_document(tally)})
        self._pending += b"],\n" + rest[1:] + b"\n"
        self._flush()
        self._publish()

    def _add_list(self, name: str, documents: Iterable[dict[str, object]]) -> None:
        self._pending += b'],\n"%s": [' % name.encode()
        self._separator = b"\n"
        for document in documents:
            self._add_document(document)

    def _add_document(self, document: dict[str, object]) -> None:
        self._pending += self._separator + msgspec.json.encode(document)
        self._separator = b",\n"
        if len(self._pending) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        data, self._pending = bytes(self._pending), bytearray()
        if self._error is not None:
            return
        try:
            if self._file is None:
                self._file = StagedInode.open_partial(self._partial)
                self._file.restart()
            self._file.write(data)
        except CasError as error:
            self._error = error

    def _publish(self) -> None:
        if self._file is None or self._error is not None:
            self.close()
            raise self._error or StorageError("the report was not written", path=self._path)
        self._file.sync()
        self.close()
        publish(self._partial, self._path, replace=True)

    def close(self) -> None:
        """Close it; what is not finished is begun anew by the next run. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _summary_document(summary: Summary) -> dict[str, object]:
    return {
        "phase": summary.phase,
        "started": summary.started,
        "finished": summary.finished,
        "interrupted": summary.interrupted,
        "checkpoint": summary.checkpoint or None,
        "problem": summary.problem or None,
        "needed": summary.needed,
        "free": summary.free,
    }


def _tally_document(tally: Tally) -> dict[str, object]:
    counts = {result.value: count for result, count in tally.counts.items()}
    return {"exit_code": tally.status, "counts": counts}
