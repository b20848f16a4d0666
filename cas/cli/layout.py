"""``cas layout``: the directories below the persist directory."""

__all__ = ["command"]

from collections.abc import Sequence

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.output import Column, print_acts, print_line, print_rows
from cas.errors import LayoutError
from cas.store.directories import Deviation, create_directories, find_deviations


@click.group(name="layout", cls=NounGroup)
def command() -> None:
    """The directories below the persist directory, their owners and modes.

    \b
    Example:
      cas layout init
    """


@command.command()
@output_options
@pass_invocation
def init(invocation: Invocation) -> None:
    """Create what is missing and print it; what exists is left as it is.

    Users and groups that the layout names are created as system users where they are missing.

    JSON: an array of path.

    \b
    Example:
      cas --persist /tmp/p layout init
    """
    print_acts(
        invocation,
        create_directories(invocation.settings()),
        line=str,
        document=lambda path: {"path": str(path)},
    )


@command.command()
@output_options
@pass_invocation
def show(invocation: Invocation) -> None:
    """List the directories with owner, group and mode.

    JSON: an array of path, owner, group, mode.

    \b
    Example:
      cas layout show
    """
    settings = invocation.settings()
    owners = settings.owners
    print_rows(
        invocation,
        settings.layout.directories(),
        columns=(
            Column("MODE", 4, lambda row: f"{row.mode:04o}"),
            Column("OWNER", 16, lambda row: owners[row.owner]),
            Column("GROUP", 16, lambda row: owners[row.group]),
            Column("PATH", 0, lambda row: str(row.path)),
        ),
        identifier=lambda row: str(row.path),
        document=lambda row: {
            "path": str(row.path),
            "owner": owners[row.owner],
            "group": owners[row.group],
            "mode": f"{row.mode:04o}",
        },
    )


@command.command()
@click.option("--fix", is_flag=True, help="Set owners and modes, create what is missing.")
@output_options
@pass_invocation
def check(invocation: Invocation, fix: bool) -> int:
    """Name every deviation from the layout; exit with 9 if any remains.

    JSON: an array of path, problem, expected, actual, fixable.

    \b
    Example:
      cas layout check --fix
    """
    settings = invocation.settings()
    if fix:
        create_directories(settings, repair=True)
    found = list(find_deviations(settings))
    print_rows(
        invocation,
        found,
        columns=(
            Column("PATH", 40, lambda row: str(row.path)),
            Column("PROBLEM", 0, Deviation.describe),
        ),
        identifier=lambda row: str(row.path),
        document=lambda row: {
            "path": str(row.path),
            "problem": row.problem,
            "expected": row.expected,
            "actual": row.actual,
            "fixable": row.fixable,
        },
    )
    if not (invocation.as_json or invocation.quiet):
        _advise(found)
    return LayoutError.exit_code if found else 0


def _advise(found: Sequence[Deviation]) -> None:
    if any(row.fixable for row in found):
        print_line("cas: `cas layout check --fix` creates what is missing, sets the rest", err=True)
    if any(row.problem == "locked" for row in found):
        print_line("cas: `cas vault unlock` opens what is locked", err=True)
    for row in found:
        if not row.fixable and row.problem != "locked":
            print_line(f"cas: put {row.path} right by hand: {row.describe()}", err=True)
