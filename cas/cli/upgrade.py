"""``cas upgrade``: what older software left, planned and converted; also ``upgradeconverter``."""

__all__ = ["command", "upgradeconverter"]

import sys
from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.output import Column, print_acts, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cas.upgrade.items import Outcome, Planned
    from cas.upgrade.merged import Merged
    from cas.upgrade.upgrade import Upgrade

_PHASES = click.Choice(["pre-vault", "post-vault"])


@click.group(name="upgrade", cls=NounGroup)
def command() -> None:
    """Convert what older software left under the persist directory.

    \b
    Example:
      cas upgrade plan && cas upgrade run
    """


_adopt_suffixed = click.option(
    "--adopt-suffixed", is_flag=True, help="Take the format off the names of volumes."
)
_remove_recreated = click.option(
    "--remove-recreated",
    is_flag=True,
    help="Remove what older software has made again of what was converted.",
)


def _open(invocation: Invocation) -> "Upgrade":
    from cas.app import open_upgrade

    return open_upgrade(invocation.settings())


@command.command()
@_adopt_suffixed
@_remove_recreated
@output_options
@pass_invocation
def plan(invocation: Invocation, adopt_suffixed: bool, remove_recreated: bool) -> None:
    """Tell what a run would do with each thing in the old places, and why; change nothing.

    JSON: an array of kind, source, action (rename, copy, finish, discard, leave), target, volume,
    reason, explanation, size, needed.

    \b
    Example:
      cas upgrade plan --json
    """
    _print_plan(invocation, adopt_suffixed=adopt_suffixed, remove_recreated=remove_recreated)


@command.command()
@click.option(
    "--phase",
    type=_PHASES,
    default="post-vault",
    show_default=True,
    help="pre-vault only tells what waits for the vault.",
)
@click.option("--dry-run", is_flag=True, help='Only tell what would be done, as "plan" does.')
@_adopt_suffixed
@_remove_recreated
@output_options
@pass_invocation
def run(
    invocation: Invocation, phase: str, dry_run: bool, adopt_suffixed: bool, remove_recreated: bool
) -> int:
    """Convert what lies in the old places; go on where an earlier run was interrupted.

    Nothing goes before its copy was compared, and nothing that has a new name is replaced. What
    fails is left where it was, and its volume is held. Verified downloads, and what an old store
    beside a newer one has, come into the store, as at the start of the service; where no containerd
    runs on it, one does meanwhile. Then what waited for that is converted and told anew. The report
    is in <persist>/vault/upgrade/report.json. Exit with the status of the last failure; with 4 if
    something else has the name of a volume, and with 5 if the device's configuration is unreadable.

    JSON: an array as that of "plan", with result (moved, discarded, left, failed), digest_before,
    digest_after, sockets, flags_lost, error; and of what was merged: kind (image, snapshot, blob,
    store), name, result, explanation, error.

    \b
    Example:
      cas upgrade run --phase post-vault
    """
    if phase == "pre-vault":
        _print_planned(invocation, _open(invocation).waiting())
        return 0
    if dry_run:
        _print_plan(invocation, adopt_suffixed=adopt_suffixed, remove_recreated=remove_recreated)
        return 0
    return _run(invocation, adopt_suffixed=adopt_suffixed, remove_recreated=remove_recreated)


@command.command()
@click.argument("names", nargs=-1, metavar="[VOLUME]...")
@output_options
@pass_invocation
def release(invocation: Invocation, names: tuple[str, ...]) -> None:
    """Let held volumes be made anew, although their old data was not converted; list them all.

    Without VOLUME only list them. A later run that fails again holds them again.

    JSON: an array of name, reason, released.

    \b
    Example:
      cas upgrade release '7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0'
    """
    print_rows(
        invocation,
        _open(invocation).release(names),
        columns=(
            Column("VOLUME", 48, lambda row: row.name),
            Column("RELEASED", 8, lambda row: "yes" if row.released else "no"),
            Column("REASON", 0, lambda row: row.reason),
        ),
        identifier=lambda row: row.name,
        document=lambda row: {"name": row.name, "reason": row.reason, "released": row.released},
    )


def _print_plan(invocation: Invocation, *, adopt_suffixed: bool, remove_recreated: bool) -> None:
    from cas.upgrade.plan import PlanOptions

    options = PlanOptions(adopt_suffixed=adopt_suffixed, remove_recreated=remove_recreated)
    _print_planned(invocation, _open(invocation).plan(options))


def _print_planned(invocation: Invocation, planned: "Iterable[Planned]") -> None:
    from cas.model.sizes import format_size
    from cas.upgrade.report import plan_document

    print_rows(
        invocation,
        planned,
        columns=(
            Column("ACTION", 7, lambda row: row.action.value),
            Column("KIND", 9, lambda row: row.found.kind.value),
            Column("NEEDS", 9, lambda row: format_size(row.needed)),
            Column("REASON", 18, lambda row: row.reason.value),
            Column("WHAT", 0, _told),
        ),
        identifier=_source,
        document=plan_document,
    )


def _run(invocation: Invocation, *, adopt_suffixed: bool, remove_recreated: bool) -> int:
    from cas.cli.vault_watch import ended_by_locking
    from cas.daemon.upgrade import upgrade
    from cas.upgrade.merged import Merged
    from cas.upgrade.plan import PlanOptions
    from cas.upgrade.report import Tally, document_of

    options = PlanOptions(adopt_suffixed=adopt_suffixed, remove_recreated=remove_recreated)
    tally, merge_status, is_told_anew = Tally(), 0, False

    def heeded(acts: "Iterator[Outcome | Merged]") -> "Iterator[Outcome | Merged]":
        nonlocal tally, merge_status, is_told_anew
        for act in acts:
            if isinstance(act, Merged):
                is_told_anew = True
                merge_status = merge_status if act.error is None else act.error.exit_code
            else:
                tally, is_told_anew = Tally() if is_told_anew else tally, False
                tally.add(act)
            yield act
            if act.error is not None:
                invocation.report(act.error)

    settings = invocation.settings()
    with ended_by_locking(settings), invocation.progress() as progress:
        print_acts(
            invocation,
            heeded(upgrade(settings, options, progress=progress)),
            line=lambda act: (
                _told_of_merge(act)
                if isinstance(act, Merged)
                else f"{act.result.value} {_told(act.planned)}"
            ),
            document=lambda act: (
                _merge_document(act) if isinstance(act, Merged) else document_of(act)
            ),
        )
    return tally.status or merge_status


def _source(planned: "Planned") -> str:
    from cas.model.printable import printable
    from cas.upgrade.journal import as_text

    return printable(as_text(planned.found.path))


def _told(planned: "Planned") -> str:
    target = "" if planned.target is None else f" -> {planned.target}"
    return f"{_source(planned)}{target}: {planned.explanation}"


def _told_of_merge(merged: "Merged") -> str:
    what = f"{merged.result.value} {merged.kind.value} {merged.name}"
    return what if not merged.explanation else f"{what}: {merged.explanation}"


def _merge_document(merged: "Merged") -> dict[str, object]:
    return {
        "kind": merged.kind.value,
        "name": merged.name,
        "result": merged.result.value,
        "explanation": merged.explanation,
        "error": None if merged.error is None else merged.error.as_document(),
    }


@click.command(name="upgradeconverter", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-p", "persist", default="/persist", show_default=True, help="The persist directory.")
@click.option("-n", "dry_run", is_flag=True, help="Only tell what would be done.")
@click.argument("phase", type=_PHASES)
def _converter(persist: str, dry_run: bool, phase: str) -> int:
    """Convert what older software left, by the command line that EVE's boot scripts use.

    \b
    Example:
      upgradeconverter post-vault
    """
    from cas.cli.main import main

    arguments = ["--persist", persist, "upgrade", "run", "--phase", phase]
    return main(arguments + (["--dry-run"] if dry_run else []))


def upgradeconverter() -> int:
    """Run ``upgradeconverter``; gives the exit status."""
    try:
        status = _converter.main(prog_name="upgradeconverter", standalone_mode=False)
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.UsageError as error:
        error.show(file=sys.stderr)
        return error.exit_code
    return status if isinstance(status, int) else 0
