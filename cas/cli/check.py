"""``cas check``."""

__all__ = ["command"]

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import Column, print_document, print_rows
from cas.cli.parameters import DURATION
from cas.errors import CasError, IntegrityError

if TYPE_CHECKING:
    from cas.app import Case
    from cas.model.progress import Progress
    from cas.store.check.check import Check
    from cas.store.check.findings import Finding
    from cas.store.check.repair import Repaired

_PASSES = 3
"""Repairing one thing may bring another to light: the image whose blob was bad, then its name."""


@click.command(name="check")
@click.option("--read-data", is_flag=True, help="Also read and hash every blob.")
@click.option(
    "--max-duration",
    type=DURATION,
    help="Stop reading after this time; the next run goes on from there.",
)
@click.option("--fix", is_flag=True, help="Repair what can be repaired.")
@output_options
@pass_invocation
def command(
    invocation: Invocation, read_data: bool, max_duration: timedelta | None, fix: bool
) -> int:
    """Verify the store's invariants; say which images and volumes are hit.

    Exits with 0 when nothing is wrong or everything was repaired, with 5 when something is lost or
    wrong, with 1 when there are only leftovers, which --fix removes.

    JSON: findings (problem, invariant, severity, object, message, advice, fixable, images,
    volumes), repaired (object, problem, done, message), scrub (null, or complete,
    blobs, size, remaining).

    \b
    Example:
      cas check
      cas check --read-data --max-duration 30m
      cas check --fix
    """
    if max_duration is not None and not read_data:
        raise click.UsageError("--max-duration goes with --read-data")
    with invocation.case(writing=fix) as case, invocation.progress() as progress:
        findings = list(
            case.check.run(read_data=read_data, max_duration=max_duration, progress=progress)
        )
        scrub = _scrub(case.check)
        repaired: list[Repaired] = []
        if fix:
            repaired, findings = _repair(case, findings, progress)
    if invocation.as_json:
        print_document(
            {
                "findings": [_finding(finding) for finding in findings],
                "repaired": [_repaired(outcome) for outcome in repaired],
                "scrub": scrub,
            }
        )
    else:
        _print(invocation, findings, repaired)
        if scrub is not None and not scrub["complete"]:
            click.echo(
                f"cas: {scrub['blobs']} blobs read, {scrub['remaining']} remain; the same command "
                "goes on with them",
                err=True,
            )
    return _status(findings)


def _repair(
    case: "Case", findings: "list[Finding]", progress: "Progress"
) -> "tuple[list[Repaired], list[Finding]]":
    """Repair until nothing that can be repaired is left; gives what was done and what remains."""
    repaired: list[Repaired] = []
    for _ in range(_PASSES):
        if not any(finding.fixable for finding in findings):
            break
        outcomes = list(case.repair.repair(findings, progress=progress))
        repaired.extend(outcomes)
        # Only reading finds bad content again, so what could not be repaired is carried over.
        kept = {
            (outcome.finding.problem, outcome.finding.object): outcome.finding
            for outcome in outcomes
            if not outcome.done
        }
        again = {(row.problem, row.object): row for row in case.check.run(progress=progress)}
        findings = list({**kept, **again}.values())
        if not any(outcome.done for outcome in outcomes):
            break
    return repaired, findings


def _status(findings: "list[Finding]") -> int:
    if any(finding.severity == "error" for finding in findings):
        return IntegrityError.exit_code
    return CasError.exit_code if findings else 0


def _scrub(check: "Check") -> dict[str, object] | None:
    state = check.scrub
    if state is None:
        return None
    return {
        "complete": state.complete,
        "blobs": state.blobs,
        "size": state.size,
        "remaining": state.remaining,
    }


def _finding(finding: "Finding") -> dict[str, object]:
    return {
        "problem": str(finding.problem),
        "invariant": finding.invariant,
        "severity": str(finding.severity),
        "object": finding.object,
        "message": finding.message,
        "advice": finding.advice,
        "fixable": finding.fixable,
        "images": list(finding.images),
        "volumes": list(finding.volumes),
    }


def _repaired(outcome: "Repaired") -> dict[str, object]:
    return {
        "object": outcome.finding.object,
        "problem": str(outcome.finding.problem),
        "done": outcome.done,
        "message": outcome.message,
    }


def _print(invocation: Invocation, findings: "list[Finding]", repaired: "list[Repaired]") -> None:
    for outcome in repaired:
        word = "repaired" if outcome.done else "not repaired"
        click.echo(f"cas: {word} {outcome.finding.object}: {outcome.message}", err=True)
    if findings or invocation.quiet:
        print_rows(
            invocation,
            findings,
            columns=(
                Column("SEVERITY", 8, lambda row: str(row.severity)),
                Column("PROBLEM", 20, lambda row: str(row.problem)),
                Column("MESSAGE", 0, _sentence),
            ),
            identifier=lambda row: row.object,
            document=_finding,
        )
    elif not repaired:
        click.echo("nothing is wrong")


def _sentence(finding: "Finding") -> str:
    hit = ", ".join((*finding.images, *finding.volumes))
    return f"{finding.message}; {finding.advice}" + (f" (hits {hit})" if hit else "")
