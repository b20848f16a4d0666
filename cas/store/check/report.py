"""A check from beginning to end, repairs included when they are asked for."""

__all__ = ["CheckReport", "check_store"]

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.check.check import Check
from cas.store.check.data import ScrubState
from cas.store.check.findings import Finding
from cas.store.check.repair import Repair, Repaired

_PASSES = 3
"""Repairing one thing may bring another to light: the image whose blob was bad, then its name."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found and did.

    Args:
        findings: What is wrong; after repairs, what remains so.
        repaired: What became of what was to be repaired, in order.
        scrub: How far reading came; None if no data was to be read.
    """

    findings: tuple[Finding, ...]
    repaired: tuple[Repaired, ...] = ()
    scrub: ScrubState | None = None


def check_store(
    check: Check,
    repair: Repair,
    *,
    read_data: bool = False,
    max_duration: timedelta | None = None,
    fix: bool = False,
    cancel: Cancellation | None = None,
    progress: Progress = NO_PROGRESS,
) -> CheckReport:
    """Check a store; with ``fix``, repair and check again until nothing repairable is left.

    Raises as :meth:`Check.run` and :meth:`Repair.repair` do; repairs that were made stay made.

    Args:
        check: Looks.
        repair: Puts right.
        read_data: Read and hash every blob, too.
        max_duration: Of reading; the next check goes on where this one stopped.
        fix: Repair what can be repaired.
        cancel: Stops between two chunks or repairs.
        progress: Told of bytes that are read.
    """
    run = check.run(
        read_data=read_data, max_duration=max_duration, cancel=cancel, progress=progress
    )
    findings = list(run)
    repaired: list[Repaired] = []
    for _ in range(_PASSES if fix else 0):
        if not any(finding.fixable for finding in findings):
            break
        outcomes = list(repair.repair(findings, cancel=cancel, progress=progress))
        repaired.extend(outcomes)
        findings = _remaining(outcomes, check.run(cancel=cancel, progress=progress))
        if not any(outcome.done for outcome in outcomes):
            break
    return CheckReport(tuple(findings), tuple(repaired), run.scrub)


def _remaining(outcomes: Iterable[Repaired], again: Iterable[Finding]) -> list[Finding]:
    # Only reading finds bad content again, so what could not be repaired is carried over.
    kept = {
        (outcome.finding.problem, outcome.finding.object): outcome.finding
        for outcome in outcomes
        if not outcome.done
    }
    return list({**kept, **{(row.problem, row.object): row for row in again}}.values())
