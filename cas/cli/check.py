"""``cas check``."""

__all__ = ["command"]

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import Column, print_document, print_line, print_rows
from cas.cli.parameters import DURATION
from cas.errors import CasError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cas.store.check.data import ScrubState
    from cas.store.check.findings import Finding
    from cas.store.check.repair import Repaired


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
    wrong, with 1 when there are only leftovers, which --fix removes, or things of others that stay
    as they are: volumes that older software has named <volume>.<format>, and mounts.

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
        report = case.check_store(
            read_data=read_data, max_duration=max_duration, fix=fix, progress=progress
        )
    if invocation.as_json:
        print_document(
            {
                "findings": [_finding(finding) for finding in report.findings],
                "repaired": [_repaired(outcome) for outcome in report.repaired],
                "scrub": _scrub(report.scrub),
            }
        )
    else:
        _print(invocation, report.findings, report.repaired)
        if report.scrub is not None and not report.scrub.complete:
            click.echo(
                f"cas: {report.scrub.blobs} blobs read, {report.scrub.remaining} remain; the same "
                "command goes on with them",
                err=True,
            )
    return _status(report.findings)


def _status(findings: "Sequence[Finding]") -> int:
    if any(finding.severity == "error" for finding in findings):
        return IntegrityError.exit_code
    return CasError.exit_code if findings else 0


def _scrub(state: "ScrubState | None") -> dict[str, object] | None:
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


def _print(
    invocation: Invocation, findings: "Sequence[Finding]", repaired: "Sequence[Repaired]"
) -> None:
    for outcome in repaired:
        word = "repaired" if outcome.done else "not repaired"
        print_line(f"cas: {word} {outcome.finding.object}: {outcome.message}", err=True)
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
