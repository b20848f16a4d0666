"""``cas volume activate``, ``deactivate`` and ``rm``: what changes volumes that are there."""

__all__ = ["activate", "deactivate", "rm"]

from functools import partial
from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.outcomes import attempt, print_outcomes
from cas.cli.parameters import VOLUME_NAME, expand_dash
from cas.errors import CasError, VolumeNotFoundError
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.volumes.status import VolumeStatus


def _named(names: tuple[str, ...]) -> "Iterator[VolumeName]":
    return map(VOLUME_NAME.parse, expand_dash(names))


def _state_document(
    name: VolumeName, status: "VolumeStatus | CasError | None", expected: str
) -> dict[str, object]:
    """A disk is active while a virtual machine has it, whatever was asked for."""
    state = expected if status is None or isinstance(status, CasError) else str(status.state)
    return {"name": str(name), "state": state}


def _print_states(
    invocation: Invocation,
    outcomes: "Iterable[tuple[VolumeName, VolumeStatus | CasError | None]]",
    expected: str,
) -> int:
    return print_outcomes(
        invocation, outcomes, document=lambda name, done: _state_document(name, done, expected)
    )


def _all_or_names(names: tuple[str, ...], everything: bool) -> None:
    if bool(names) == everything:
        raise click.UsageError("give volume names or --all")


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...|-")
@click.option("--all", "everything", is_flag=True, help="Every volume, as after a reboot.")
@output_options
@pass_invocation
def activate(invocation: Invocation, names: tuple[str, ...], everything: bool) -> int:
    """Mount volumes; one that is mounted stays as it is.

    JSON: an array of name, state.

    \b
    Example:
      cas volume activate --all
    """
    _all_or_names(names, everything)
    if everything:
        with invocation.case(writing=True) as case:
            return _print_states(invocation, case.volumes.activate_all(), "active")
    with invocation.volumes(writing=True) as volumes:
        return _print_states(invocation, attempt(_named(names), volumes.activate), "active")


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...|-")
@click.option("--all", "everything", is_flag=True, help="Every volume.")
@output_options
@pass_invocation
def deactivate(invocation: Invocation, names: tuple[str, ...], everything: bool) -> int:
    """Unmount volumes; data stays, and is there again after activate.

    JSON: an array of name, state.

    \b
    Example:
      cas volume deactivate 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0
    """
    _all_or_names(names, everything)
    if everything:
        with invocation.case(writing=True) as case:
            return _print_states(invocation, case.volumes.deactivate_all(), "inactive")
    with invocation.volumes(writing=True) as volumes:
        return _print_states(invocation, attempt(_named(names), volumes.deactivate), "inactive")


@click.command(name="rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...|-")
@click.option("--force", is_flag=True, help="Even while processes use it.")
@click.option("--ignore", is_flag=True, help="Do not fail for a volume that is not there.")
@output_options
@pass_invocation
def rm(invocation: Invocation, names: tuple[str, ...], force: bool, ignore: bool) -> int:
    """Remove volumes and the data in them.

    JSON: an array of name, removed (false for one that --ignore passed over).

    \b
    Example:
      cas volume rm 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0
    """
    clear = invocation.clear_disks()
    if clear is not None:
        return _remove(invocation, names, partial(clear.remove, force=force), ignore=ignore)
    with invocation.case(writing=True) as case:
        act = partial(case.volumes.remove, force=force)
        status = _remove(invocation, names, act, ignore=ignore)
        case.collect_garbage()
    return status


def _remove(
    invocation: Invocation,
    names: tuple[str, ...],
    act: "Callable[[VolumeName], bool]",
    *,
    ignore: bool,
) -> int:
    def remove(name: VolumeName) -> bool:
        removed = act(name)
        if not removed and not ignore:
            raise VolumeNotFoundError(
                f"there is no volume {name}; 'cas volume ls' lists those that are", name=name
            )
        return removed

    return print_outcomes(
        invocation,
        attempt(_named(names), remove),
        document=lambda name, removed: {"name": str(name), "removed": removed},
    )
