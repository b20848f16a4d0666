"""``cas volume``: one command per use case of :class:`cas.volumes.volumes.Volumes`.

Those that look are here; those that change something have modules of their own.
"""

__all__ = ["command"]

from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.output import Column, local_time, print_document, print_rows
from cas.cli.parameters import VOLUME_NAME
from cas.cli.volume_document import volume_document
from cas.cli.volume_prepare import prepare
from cas.cli.volume_snapshot import command as snapshot
from cas.cli.volume_state import activate, deactivate, rm
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cas.volumes.status import ForeignEntry, VolumeStatus


@click.group(name="volume", cls=NounGroup)
def command() -> None:
    """Volumes: writable file systems and disks made from images, named <UUID>#<generation>.

    \b
    Example:
      cas volume prepare 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --image alpine:3.20 --activate
    """


for _each in (prepare, activate, deactivate, rm, snapshot):
    command.add_command(_each)


@command.command(name="ls")
@click.option(
    "--foreign", is_flag=True, help="Instead: what lies beside them and is no volume of cas."
)
@click.option("--clear", is_flag=True, help="Only disks outside the vault, which may be locked.")
@output_options
@pass_invocation
def ls(invocation: Invocation, foreign: bool, clear: bool) -> None:
    """List volumes.

    What older software has named <volume>.<format> is no volume of cas and never touched;
    --foreign lists it, with whatever else lies there.

    JSON: an array of name, state, problem, rootfs, image, root_digest, manifest_digest, chain_id,
    snapshot_key, snapshotter, read_only, created, and for a disk volume disk (path, clear, format,
    virtual_size, allocated, snapshots, known, image, manifest_digest, blob_digest, size, read_only,
    created). With --foreign: of path, reason.

    \b
    Example:
      cas volume ls -q
    """
    disks = invocation.clear_disks() if clear else None
    if disks is not None:
        _print_volumes(invocation, disks.iter_volumes())
        return
    with invocation.case(writing=False) as case:
        if foreign:
            _print_foreign(invocation, case.volumes.iter_foreign())
            return
        place = invocation.settings().layout.clear_volumes
        listed = case.volumes.iter_volumes()
        if clear:
            listed = (each for each in listed if each.rootfs.parent == place)
        _print_volumes(invocation, listed)


def _print_volumes(invocation: Invocation, statuses: "Iterable[VolumeStatus]") -> None:
    print_rows(
        invocation,
        statuses,
        columns=(
            Column("NAME", 38, lambda status: str(status.name)),
            Column("STATE", 8, lambda status: str(status.state)),
            Column("KIND", 9, _kind),
            Column("CREATED", 19, _created),
            Column("IMAGE", 0, _image),
        ),
        identifier=lambda status: str(status.name),
        document=volume_document,
    )


def _print_foreign(invocation: Invocation, entries: "Iterable[ForeignEntry]") -> None:
    print_rows(
        invocation,
        entries,
        columns=(
            Column("PATH", 60, lambda entry: str(entry.path)),
            Column("WHAT", 0, lambda entry: entry.reason),
        ),
        identifier=lambda entry: str(entry.path),
        document=lambda entry: {"path": str(entry.path), "reason": entry.reason},
    )


def _kind(status: "VolumeStatus") -> str:
    return str(status.disk.format) if status.disk else "container" if status.record else ""


def _created(status: "VolumeStatus") -> str:
    record = status.disk.record if status.disk else status.record
    return local_time(record.created) if record else ""


def _image(status: "VolumeStatus") -> str:
    if status.disk is None:
        return status.record.image if status.record else status.problem or ""
    if status.disk.record is None:
        return "(not made by cas)"
    origin = status.disk.record.origin
    return "(blank)" if origin is None else origin.image


@command.command()
@click.argument("names", nargs=-1, required=True, type=VOLUME_NAME, metavar="NAME...")
@output_options
@pass_invocation
def inspect(invocation: Invocation, names: tuple[VolumeName, ...]) -> None:
    """Print volumes as a JSON array.

    \b
    Example:
      cas volume inspect 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0
    """
    with invocation.volumes(writing=False) as volumes:
        print_document([volume_document(volumes.get(name)) for name in names])


@command.command()
@click.argument("name", type=VOLUME_NAME)
@output_options
@pass_invocation
def usage(invocation: Invocation, name: VolumeName) -> None:
    """Show the bytes that a volume uses, and who uses it.

    Its own layer or disk, its snapshots, and layers that it shares. JSON: name, own_bytes,
    shared_bytes, inodes, snapshot_bytes, users (pid, name).

    \b
    Example:
      cas volume usage 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0
    """
    from cas.model.sizes import format_size

    with invocation.case(writing=False) as case:
        found = case.volumes.usage(name)
    if invocation.as_json:
        print_document(
            {
                "name": str(name),
                "own_bytes": found.own_bytes,
                "shared_bytes": found.shared_bytes,
                "inodes": found.inodes,
                "snapshot_bytes": found.snapshot_bytes,
                "users": [{"pid": pid, "name": user} for pid, user in found.users],
            }
        )
        return
    click.echo(f"own        {format_size(found.own_bytes)}")
    click.echo(f"snapshots  {format_size(found.snapshot_bytes)}")
    click.echo(f"shared     {format_size(found.shared_bytes)}")
    click.echo(f"inodes     {found.inodes}")
    users = ", ".join(f"{user} ({pid})" for pid, user in found.users)
    click.echo(f"used by    {users or 'nobody'}")
