"""``cas df``."""

__all__ = ["command"]

from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import Column, print_document, print_rows

if TYPE_CHECKING:
    from cas.store.account.usage_values import StoreUsage


@click.command(name="df")
@click.option("-v", "--details", is_flag=True, help="Also list images and volumes.")
@output_options
@pass_invocation
def command(invocation: Invocation, details: bool) -> None:
    """Show what uses the disk, by owner: allocated blocks.

    The parts add up to what is below the persist directory; what the file system uses beyond that
    is named as unexplained. Blocks that a disk shares with its image or other disks count once. Of
    downloads, what nobody has gone on with for an hour has lines of its own: "cas prune" gives it
    back.

    JSON: size, entries (owner, part, size, objects), volumes (name, own_bytes, shared_bytes,
    snapshot_bytes, format, virtual_size, clear), images (name, content_bytes, snapshot_bytes,
    unique_bytes), file_systems (path, capacity, used, free, explained, unexplained).

    \b
    Example:
      cas df
      cas df --json
    """
    with invocation.case(writing=False) as case, invocation.progress() as progress:
        usage = case.usage.measure(progress=progress)
    if invocation.as_json:
        print_document(_document(usage))
        return
    _print_entries(invocation, usage)
    if details:
        click.echo()
        _print_images(invocation, usage)
        click.echo()
        _print_volumes(invocation, usage)


def _document(usage: "StoreUsage") -> dict[str, object]:
    return {
        "size": usage.size,
        "entries": [
            {"owner": row.owner, "part": row.part, "size": row.size, "objects": row.objects}
            for row in usage.entries
        ],
        "volumes": [
            {
                "name": row.name,
                "own_bytes": row.own_bytes,
                "shared_bytes": row.shared_bytes,
                "snapshot_bytes": row.snapshot_bytes,
                "format": row.format,
                "virtual_size": row.virtual_size,
                "clear": row.clear,
            }
            for row in usage.volumes
        ],
        "images": [
            {
                "name": row.name,
                "content_bytes": row.content_bytes,
                "snapshot_bytes": row.snapshot_bytes,
                "unique_bytes": row.unique_bytes,
            }
            for row in usage.images
        ],
        "file_systems": [
            {
                "path": str(row.path),
                "capacity": row.capacity,
                "used": row.used,
                "free": row.free,
                "explained": row.explained,
                "unexplained": row.unexplained,
            }
            for row in usage.file_systems
        ],
    }


def _print_entries(invocation: Invocation, usage: "StoreUsage") -> None:
    from cas.model.sizes import format_size

    print_rows(
        invocation,
        usage.entries,
        columns=(
            Column("OWNER", 10, lambda row: row.owner),
            Column("PART", 28, lambda row: row.part),
            Column("OBJECTS", 7, lambda row: "" if row.objects is None else str(row.objects)),
            Column("SIZE", 0, lambda row: format_size(row.size)),
        ),
        identifier=lambda row: f"{row.owner}/{row.part}",
        document=lambda row: row.part,
    )
    if invocation.quiet:
        return
    click.echo(f"total {format_size(usage.size)}")
    for system in usage.file_systems:
        click.echo(
            f"file system of {system.path}: {format_size(system.used)} used, "
            f"{format_size(system.free)} free, {format_size(system.unexplained)} of it not ours"
        )


def _print_images(invocation: Invocation, usage: "StoreUsage") -> None:
    from cas.model.sizes import format_size

    print_rows(
        invocation,
        usage.images,
        columns=(
            Column("IMAGE", 48, lambda row: row.name),
            Column("CONTENT", 9, lambda row: format_size(row.content_bytes)),
            Column("LAYERS", 9, lambda row: format_size(row.snapshot_bytes)),
            Column("UNIQUE", 0, lambda row: format_size(row.unique_bytes)),
        ),
        identifier=lambda row: row.name,
        document=lambda row: row.name,
    )


def _print_volumes(invocation: Invocation, usage: "StoreUsage") -> None:
    from cas.model.sizes import format_size

    print_rows(
        invocation,
        usage.volumes,
        columns=(
            Column("VOLUME", 38, lambda row: row.name),
            Column("OWN", 9, lambda row: format_size(row.own_bytes)),
            Column("SNAPSHOTS", 9, lambda row: format_size(row.snapshot_bytes)),
            Column("SHARED", 9, lambda row: format_size(row.shared_bytes)),
            Column("FORMAT", 9, lambda row: row.format),
            Column(
                "DISK", 0, lambda row: format_size(row.virtual_size) if row.virtual_size else ""
            ),
        ),
        identifier=lambda row: row.name,
        document=lambda row: row.name,
    )
