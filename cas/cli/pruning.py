"""What ``cas prune``, ``cas blob prune`` and ``cas image prune`` share: plan, ask, run, tell."""

__all__ = ["prune_options", "run_prune"]

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cas.cli.invocation import Invocation
from cas.cli.output import Column, print_document, print_line, print_rows
from cas.cli.parameters import SIZE
from cas.errors import CasError, NoSpaceError

if TYPE_CHECKING:
    from cas.store.prune.plan import PlannedObject, PrunePlan
    from cas.store.prune.prune import PruneResult

_Command = TypeVar("_Command", bound=Callable[..., Any])


def prune_options(function: _Command) -> _Command:
    """Add the options of the prune commands."""
    for option in (
        click.option(
            "--min-free", type=SIZE, help="Least recently used first, until this much is free."
        ),
        click.option(
            "--keep-at-most", type=SIZE, help="Least recently used first, until the store fits."
        ),
        click.option(
            "--filter", "filters", multiple=True, metavar="K=V", help="Only what matches."
        ),
        click.option("--force", is_flag=True, help="Remove without asking; needed in scripts."),
        click.option("--dry-run", is_flag=True, help="Print what would go, and change nothing."),
    ):
        function = option(function)
    return function


def run_prune(
    invocation: Invocation,
    *,
    scope: str,
    dry_run: bool,
    force: bool,
    filters: tuple[str, ...],
    keep_at_most: int | None,
    min_free: int | None,
) -> int:
    """Plan, and unless it is a dry run, ask and remove; gives the exit status."""
    from cas.store.prune.plan import Goal
    from cas.store.prune.selection import Scope, parse_selection

    goal = None
    if keep_at_most is not None or min_free is not None:
        goal = Goal(keep_at_most=keep_at_most, min_free=min_free)
    with invocation.case(writing=not dry_run) as case, invocation.progress() as progress:
        selection = parse_selection(filters, now=invocation.now(), scope=Scope(scope))
        plan = case.prune.plan(selection, goal=goal)
        if dry_run:
            _print_plan(invocation, plan)
            return NoSpaceError.exit_code if plan.missing else 0
        if plan.objects and not force and not _is_wanted(invocation, plan):
            click.echo("cas: nothing was removed", err=True)
            return CasError.exit_code
        result = case.prune.execute(plan, progress=progress)
    _print_result(invocation, plan, result)
    return NoSpaceError.exit_code if result.missing else 0


def _is_wanted(invocation: Invocation, plan: "PrunePlan") -> bool:
    from cas.model.sizes import format_size

    if invocation.as_json or not sys.stdin.isatty():
        raise click.UsageError("removing without a terminal to ask on needs --force")
    return click.confirm(
        f"{len(plan.objects)} objects of {format_size(plan.size)} will be removed; go on?",
        err=True,
    )


def _object(planned: "PlannedObject") -> dict[str, object]:
    return {
        "kind": planned.kind,
        "name": planned.name,
        "action": str(planned.action),
        "reason": planned.reason,
        "size": planned.size,
    }


def _print_objects(invocation: Invocation, objects: "Iterable[PlannedObject]") -> None:
    from cas.model.sizes import format_size

    print_rows(
        invocation,
        objects,
        columns=(
            Column("ACTION", 7, lambda row: str(row.action)),
            Column("KIND", 8, lambda row: row.kind),
            Column("SIZE", 9, lambda row: format_size(row.size)),
            Column("NAME", 48, lambda row: row.name),
            Column("REASON", 0, lambda row: row.reason),
        ),
        identifier=lambda row: row.name,
        document=_object,
    )


def _print_plan(invocation: Invocation, plan: "PrunePlan") -> None:
    from cas.model.sizes import format_size

    if invocation.as_json:
        print_document(
            {
                "dry_run": True,
                "objects": [_object(planned) for planned in plan.objects],
                "size": plan.size,
                "missing": plan.missing,
                "holders": _holders(plan),
            }
        )
        return
    _print_objects(invocation, plan.objects)
    if not invocation.quiet:
        click.echo(f"{len(plan.objects)} objects, {format_size(plan.size)} would come free")
    _explain(plan, plan.missing)


def _print_result(invocation: Invocation, plan: "PrunePlan", result: "PruneResult") -> None:
    from cas.model.sizes import format_size

    if invocation.as_json:
        print_document(
            {
                "dry_run": False,
                "objects": [_object(planned) for planned in result.removed],
                "skipped": [
                    {**_object(skipped.planned), "reason": skipped.reason}
                    for skipped in result.skipped
                ],
                "size": result.size,
                "missing": result.missing,
                "holders": _holders(plan),
            }
        )
        return
    _print_objects(invocation, result.removed)
    for skipped in result.skipped:
        print_line(
            f"cas: kept {skipped.planned.kind} {skipped.planned.name}: {skipped.reason}", err=True
        )
    if not invocation.quiet:
        click.echo(f"{len(result.removed)} objects, {format_size(result.size)} came free")
    _explain(plan, result.missing)


def _holders(plan: "PrunePlan") -> list[dict[str, object]]:
    return [
        {"kind": holder.kind, "name": holder.name, "size": holder.size, "reason": holder.reason}
        for holder in plan.holders
    ]


def _explain(plan: "PrunePlan", missing: int) -> None:
    """Tell on stderr what holds the space that a missed goal wanted."""
    from cas.model.sizes import format_size

    if not missing:
        return
    click.echo(f"cas: the goal is missed by {format_size(missing)}; held by:", err=True)
    for holder in plan.holders:
        print_line(
            f"cas:   {holder.kind} {holder.name} {format_size(holder.size)}: {holder.reason}",
            err=True,
        )
