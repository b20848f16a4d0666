"""``cas volume``: one command per use case of :class:`cas.volumes.volumes.Volumes`."""

__all__ = ["command"]

from functools import partial
from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.outcomes import attempt, print_outcomes
from cas.cli.output import (
    Column,
    local_time,
    print_document,
    print_rows,
    timestamp,
)
from cas.cli.parameters import SIZE, VOLUME_NAME, expand_dash
from cas.cli.pulling import pull_image
from cas.cli.volume_snapshot import command as snapshot_command
from cas.errors import CasError, VolumeNotFoundError
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.volumes.status import DiskStatus, ForeignEntry, VolumeStatus


_REGISTRY = "docker://"


@click.group(name="volume", cls=NounGroup)
def command() -> None:
    """Volumes: writable file systems and disks made from images, named <UUID>#<generation>.

    \b
    Example:
      cas volume prepare 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --image alpine:3.20 --activate
    """


command.add_command(snapshot_command)


def _document(status: "VolumeStatus") -> dict[str, object]:
    record = status.record
    return {
        "name": str(status.name),
        "state": str(status.state),
        "problem": status.problem,
        "rootfs": str(status.rootfs),
        "image": record.image if record else None,
        "root_digest": str(record.root_digest) if record and record.root_digest else None,
        "manifest_digest": str(record.manifest_digest)
        if record and record.manifest_digest
        else None,
        "chain_id": str(record.chain_id) if record and record.chain_id else None,
        "snapshot_key": record.snapshot_key if record else None,
        "snapshotter": record.snapshotter if record else None,
        "read_only": record.read_only if record else None,
        "created": timestamp(record.created) if record else None,
        "disk": _disk_document(status.disk) if status.disk else None,
    }


def _disk_document(disk: "DiskStatus") -> dict[str, object]:
    record = disk.record
    origin = record.origin if record else None
    return {
        "path": str(disk.path),
        "clear": disk.clear,
        "format": str(disk.format),
        "virtual_size": disk.virtual_size,
        "allocated": disk.allocated,
        "known": record is not None,
        "image": origin.image if origin else None,
        "manifest_digest": str(origin.manifest_digest) if origin else None,
        "blob_digest": str(origin.blob_digest) if origin else None,
        "size": record.size if record else None,
        "read_only": record.read_only if record else None,
        "created": timestamp(record.created) if record else None,
    }


@command.command()
@click.argument("name", type=VOLUME_NAME)
@click.option(
    "--image",
    metavar="REF",
    help="Image to make a container volume from; docker://REF is pulled when absent.",
)
@click.option(
    "--disk",
    metavar="REF|DIGEST",
    help="Image, or blob, to make a disk volume from; docker://REF is pulled when absent.",
)
@click.option("--blank", is_flag=True, help="An empty disk of --size.")
@click.option("--size", type=SIZE, metavar="SIZE", help="Disks: at least so large, such as 10GiB.")
@click.option(
    "--format",
    "disk_format",
    type=click.Choice(("raw", "qcow2", "vmdk", "vhdx", "iso")),
    help="Disks: convert to that; blank disks are raw or qcow2.",
)
@click.option("--clear", is_flag=True, help="Disks: outside the vault.")
@click.option("--activate", is_flag=True, help="Mount it as well.")
@click.option("--replace", is_flag=True, help="Containers: remove the generations before this one.")
@click.option("--read-only", is_flag=True, help="No writable layer; a disk nobody writes to.")
@output_options
@pass_invocation
def prepare(
    invocation: Invocation,
    *,
    name: VolumeName,
    image: str | None,
    disk: str | None,
    blank: bool,
    size: int | None,
    disk_format: str | None,
    clear: bool,
    activate: bool,
    replace: bool,
    read_only: bool,
) -> None:
    """Make a volume from an image and print its root directory, or the file of its disk.

    Calling it again returns the volume as it is, data untouched. Another image under the same
    name is a conflict: use the next generation. An image given as docker://REF is pulled if the
    store has none of that name. With --replace the earlier generations go once it is certain that
    this one can be made, and before it takes room. A disk is grown to the size asked for and never
    made smaller.

    \b
    Example:
      cas volume prepare 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 --image alpine:3.20 --activate
      cas volume prepare 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#1 --disk debian:12 --size 10GiB
    """
    if [image is not None, disk is not None, blank].count(True) != 1:
        raise click.UsageError("give one of --image, --disk and --blank")
    if image is not None:
        _refuse_disk_options(size=size, disk_format=disk_format, clear=clear)
        _prepare_container(
            invocation, name, image, read_only=read_only, activate=activate, replace=replace
        )
        return
    if replace:
        raise click.UsageError("--replace is for containers: remove the old disk with 'volume rm'")
    from cas.model.disk.format import DiskFormat
    from cas.model.disk.record import DiskRequest

    request = DiskRequest(
        source=None if disk is None else _present(invocation, disk),
        size=size,
        format=None if disk_format is None else DiskFormat(disk_format),
        read_only=read_only,
        clear=clear,
    )
    with invocation.case(writing=True) as case, invocation.progress() as progress:
        status = case.volumes.prepare_disk(name, request, progress=progress)
    _print_prepared(invocation, status)


def _refuse_disk_options(*, size: int | None, disk_format: str | None, clear: bool) -> None:
    if clear:
        raise click.UsageError(
            "only disks can be clear volumes: the layers of a container lie in the vault, with "
            "everything that is written over them"
        )
    if size is not None or disk_format is not None:
        raise click.UsageError("--size and --format are for disks: give --disk or --blank")


def _prepare_container(
    invocation: Invocation,
    name: VolumeName,
    image: str,
    *,
    read_only: bool,
    activate: bool,
    replace: bool,
) -> None:
    image = _present(invocation, image)
    with invocation.case(writing=True) as case, invocation.progress() as progress:
        status = case.volumes.prepare(
            name,
            image,
            read_only=read_only,
            activate=activate,
            replace=replace,
            progress=progress,
        )
    _print_prepared(invocation, status)


def _print_prepared(invocation: Invocation, status: "VolumeStatus") -> None:
    if invocation.as_json:
        print_document(_document(status))
    else:
        click.echo(str(status.name) if invocation.quiet else str(status.rootfs))


def _present(invocation: Invocation, image: str) -> str:
    """Give the name of an image in the store, pulled first if it was given with its registry."""
    if image.startswith(_REGISTRY):
        return _ensure_pulled(invocation, image.removeprefix(_REGISTRY))
    return image


def _ensure_pulled(invocation: Invocation, reference: str) -> str:
    """Pull an image unless the store has one of the name; gives the name."""
    from cas.model.reference import normalise_docker_name

    name = normalise_docker_name(reference)
    with invocation.case(writing=False) as case:
        present = case.images.exists(name)
    if not present:
        pull_image(invocation, name)
    return name


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
    virtual_size, allocated, known, image, manifest_digest, blob_digest, size, read_only, created).
    With --foreign: of path, reason.

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
        document=_document,
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
        print_document([_document(volumes.get(name)) for name in names])


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


@command.command()
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


@command.command()
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


@command.command(name="rm")
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
