"""``cas volume snapshot``: use cases of :class:`cas.volumes.snapshots.VolumeSnapshots`."""

__all__ = ["command"]

from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.outcomes import attempt, print_outcomes
from cas.cli.output import Column, local_time, print_rows, timestamp
from cas.cli.parameters import VOLUME_NAME
from cas.errors import VolumeSnapshotNotFoundError
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cas.volumes.status import VolumeSnapshot


@click.group(name="snapshot", cls=NounGroup)
def command() -> None:
    """Snapshots of volumes: of containers, of qcow2 disks, and of raw disks on xfs or btrfs.

    An active container is refused unless --quiesced says that nobody uses it; it is unmounted for
    the moment then. A disk that anybody has open is refused.

    \b
    Example:
      cas volume snapshot create 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --snapshot before-update
      cas volume snapshot rollback 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --snapshot before-update
    """


def _document(snapshot: "VolumeSnapshot") -> dict[str, object]:
    return {
        "volume": str(snapshot.volume),
        "snapshot": snapshot.name,
        "created": timestamp(snapshot.created),
        "own_bytes": snapshot.own_bytes,
    }


def _print(invocation: Invocation, snapshots: "Iterator[VolumeSnapshot]") -> None:
    from cas.model.sizes import format_size

    print_rows(
        invocation,
        snapshots,
        columns=(
            Column("VOLUME", 38, lambda row: str(row.volume)),
            Column("CREATED", 19, lambda row: local_time(row.created)),
            Column("SIZE", 10, lambda row: format_size(row.own_bytes)),
            Column("SNAPSHOT", 0, lambda row: row.name),
        ),
        identifier=lambda row: row.name,
        document=_document,
    )


_names = click.argument("names", nargs=-1, required=True, type=VOLUME_NAME, metavar="NAME...")
_quiesced = click.option(
    "--quiesced", is_flag=True, help="Nobody uses the volumes, though they are active."
)
_snapshot = click.option(
    "--snapshot", required=True, metavar="SNAPSHOT", help="Name of the snapshot."
)


@command.command()
@_names
@_snapshot
@_quiesced
@output_options
@pass_invocation
def create(
    invocation: Invocation, names: tuple[VolumeName, ...], snapshot: str, quiesced: bool
) -> None:
    """Take a snapshot of volumes, of all that are named or of none.

    It takes a moment, whatever the volumes hold. A volume that has a snapshot of the name keeps
    that one. JSON: an array of volume, snapshot, created, own_bytes.

    \b
    Example:
      cas volume snapshot create 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --snapshot before-update
    """
    with invocation.case(writing=True) as case:
        taken = case.volume_snapshots.create(names, snapshot, quiesced=quiesced)
    _print(invocation, iter(taken))


@command.command(name="ls")
@click.argument("names", nargs=-1, type=VOLUME_NAME, metavar="[NAME...]")
@output_options
@pass_invocation
def ls(invocation: Invocation, names: tuple[VolumeName, ...]) -> None:
    """List the snapshots of volumes, oldest first; of all volumes without a name.

    SIZE is what was written between a snapshot and the one before, and of a raw disk what only the
    snapshot holds. JSON: an array of volume,
    snapshot, created, own_bytes.

    \b
    Example:
      cas volume snapshot ls
    """
    with invocation.case(writing=False) as case:
        chosen = names or [
            status.name
            for status in case.volumes.iter_volumes()
            if (status.record is not None and status.record.history is not None)
            or (status.disk is not None and status.disk.snapshots)
        ]
        _print(
            invocation,
            (row for name in chosen for row in case.volume_snapshots.iter_snapshots(name)),
        )


@command.command()
@_names
@_snapshot
@click.option("--drop-later", is_flag=True, help="Remove the snapshots that were taken after it.")
@_quiesced
@output_options
@pass_invocation
def rollback(
    invocation: Invocation,
    names: tuple[VolumeName, ...],
    snapshot: str,
    drop_later: bool,
    quiesced: bool,
) -> None:
    """Make volumes what they were when the snapshot was taken; all that are named, or none.

    What was written since the last snapshot is lost: take one before to keep it. Later snapshots
    stay unless --drop-later is given. JSON: an array of volume, snapshot, created, own_bytes.

    \b
    Example:
      cas volume snapshot rollback 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --snapshot before-update
    """
    with invocation.case(writing=True) as case:
        reached = case.volume_snapshots.roll_back(
            names, snapshot, drop_later=drop_later, quiesced=quiesced
        )
        case.collect_garbage()
    _print(invocation, iter(reached))


@command.command(name="rm")
@_names
@_snapshot
@_quiesced
@click.option("--ignore", is_flag=True, help="Do not fail for a snapshot that is not there.")
@output_options
@pass_invocation
def rm(
    invocation: Invocation,
    names: tuple[VolumeName, ...],
    snapshot: str,
    quiesced: bool,
    ignore: bool,
) -> int:
    """Remove a snapshot of volumes; the volumes and their other snapshots stay what they are.

    JSON: an array of volume, removed (false for one that --ignore passed over).

    \b
    Example:
      cas volume snapshot rm 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --snapshot before-update
    """
    with invocation.case(writing=True) as case:

        def remove(name: VolumeName) -> bool:
            removed = case.volume_snapshots.remove(name, snapshot, quiesced=quiesced)
            if not removed and not ignore:
                raise VolumeSnapshotNotFoundError(
                    f"volume {name} has no snapshot {snapshot!r}; 'cas volume snapshot ls' lists "
                    "those that are",
                    name=name,
                    snapshot=snapshot,
                )
            return removed

        status = print_outcomes(
            invocation,
            attempt(names, remove),
            document=lambda name, removed: {"volume": str(name), "removed": removed},
        )
        case.collect_garbage()
    return status
