"""The report of a run: what became of everything that lay in the old places, as JSON.

It accounts for earlier runs as well: what they converted is taken from the journal.
"""

__all__ = [
    "Summary",
    "document_of",
    "encode_report",
    "entry_document",
    "plan_document",
    "status_of",
]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from cas.errors import CheckpointError, ConflictError
from cas.upgrade.items import Action, Outcome, Planned, Reason, Result
from cas.upgrade.journal import Entry, as_text

_FORMAT_VERSION = 1


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
        "sockets": list(outcome.sockets),
        "error": None if outcome.error is None else outcome.error.as_document(),
    }


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


def encode_report(
    summary: Summary, outcomes: Iterable[Outcome], earlier: Iterable[Entry], status: int
) -> bytes:
    """Give the bytes of the report."""
    items = [document_of(outcome) for outcome in outcomes]
    document = {
        "format_version": _FORMAT_VERSION,
        "phase": summary.phase,
        "started": summary.started,
        "finished": summary.finished,
        "interrupted": summary.interrupted,
        "exit_code": status,
        "checkpoint": summary.checkpoint or None,
        "problem": summary.problem or None,
        "needed": summary.needed,
        "free": summary.free,
        "counts": {
            result.value: sum(item["result"] == result.value for item in items) for result in Result
        },
        "items": items,
        "earlier": [entry_document(entry) for entry in earlier],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def status_of(outcomes: Iterable[Outcome]) -> int:
    """Give the exit status: that of the last failure, or of what stands in the way; else 0."""
    return next(reversed(list(_statuses(outcomes))), 0)


def _statuses(outcomes: Iterable[Outcome]) -> Iterator[int]:
    for outcome in outcomes:
        if outcome.error is not None:
            yield outcome.error.exit_code
        elif outcome.planned.action is Action.LEAVE:
            match outcome.planned.reason:
                case (
                    Reason.FOREIGN_TARGET
                    | Reason.VOLUME_TAKEN
                    | Reason.STORE_NOT_CONVERTED
                    | Reason.NO_DIGEST
                ):
                    yield ConflictError.exit_code
                case Reason.NO_CONFIG:
                    yield CheckpointError.exit_code
