"""``cas volume prepare``: container volumes and disk volumes from images, and blank disks."""

__all__ = ["prepare"]

from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document, print_line
from cas.cli.parameters import DISK_SIZE, VOLUME_NAME
from cas.cli.pulling import pull_image
from cas.cli.volume_document import volume_document
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from cas.volumes.status import VolumeStatus

_REGISTRY = "docker://"
_PATHS = ("/", "./", "../")
"""How no reference begins."""


@click.command()
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
@click.option(
    "--size", type=DISK_SIZE, metavar="SIZE", help="Disks: at least so large, such as 10GiB."
)
@click.option(
    "--format",
    "disk_format",
    type=click.Choice(("raw", "qcow2", "vmdk", "vhdx", "iso")),
    help="Disks: convert to that; blank disks are raw or qcow2.",
)
@click.option("--clear", is_flag=True, help="Disks: outside the vault.")
@click.option("--activate", is_flag=True, help="Mount it as well.")
@click.option("--replace", is_flag=True, help="Remove the generations before this one.")
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
    this one can be made, and before it takes room that is not there. A disk is grown to the size
    asked for, in whole sectors of 512 bytes, and never made smaller.

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
        status = case.volumes.prepare_disk(name, request, replace=replace, progress=progress)
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
        print_document(volume_document(status))
    else:
        click.echo(str(status.name) if invocation.quiet else str(status.rootfs))
        _tell_rounding(invocation, status)


def _tell_rounding(invocation: Invocation, status: "VolumeStatus") -> None:
    """Say that the disk is larger than asked for, where that is because of its sectors."""
    from cas.model.disk.plan import whole_sectors

    disk = status.disk
    asked = disk.record.size if disk and disk.record else None
    if disk is None or asked is None or invocation.quiet:
        return
    if asked != disk.virtual_size == whole_sectors(asked):
        print_line(
            f"cas: the disk has {disk.virtual_size} bytes, the {asked} asked for in whole sectors",
            err=True,
        )


def _present(invocation: Invocation, image: str) -> str:
    """Give the name of an image in the store, pulled first if it was given with its registry.

    Raises:
        UsageError: It is the path of a file, which has to be brought in first.
    """
    if image.startswith(_PATHS):
        raise click.UsageError(
            f"{image!r} is a path and no name of an image: bring the file in first, an archive by "
            "'cas image import', a disk by 'cas blob ingest', which prints the digest to give here"
        )
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
