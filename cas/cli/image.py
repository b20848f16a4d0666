"""``cas image``: one command per use case of :class:`cas.store.image.images.Images`."""

__all__ = ["command"]

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from cas.cli.parameters import DIGEST, PLATFORM, expand_dash
from cas.cli.pruning import prune_options, run_prune
from cas.cli.pulling import pull_image
from cas.errors import ImageNotFoundError

if TYPE_CHECKING:
    from cas.model.descriptor import Platform
    from cas.model.digest import Digest
    from cas.model.records import ImageRecord


@click.group(name="image", cls=NounGroup)
def command() -> None:
    """Images: names for manifests and indexes in the store.

    \b
    Example:
      cas image import alpine.tar --name docker.io/library/alpine:3.20
      cas image ls
    """


def _document(record: "ImageRecord") -> dict[str, object]:
    return {
        "name": record.name,
        "digest": str(record.target.digest),
        "media_type": record.target.media_type,
        "target_size": record.target.size,
        "created": timestamp(record.created),
        "updated": timestamp(record.updated),
        "labels": dict(sorted(record.labels.items())),
    }


@command.command(name="import")
@click.argument("archive", metavar="FILE|DIRECTORY|-")
@click.option("--name", metavar="REF", help="Name of the image; needed when the archive has none.")
@click.option(
    "--platform", type=PLATFORM, help="Platform that must be complete.  [default: this machine's]"
)
@output_options
@pass_invocation
def import_(
    invocation: Invocation, archive: str, name: str | None, platform: "Platform | None"
) -> None:
    """Import images from an OCI layout or a docker archive and print their names.

    FILE may be a tar, plain or compressed with gzip, zstd, bzip2 or xz, or a directory; "-" reads
    a tar from stdin. Every blob is verified while it is read; nothing is unpacked on the way.

    JSON: an array as of "cas image ls".

    \b
    Example:
      cas image import alpine.tar --name docker.io/library/alpine:3.20
      docker save alpine:3.20 | cas image import -
    """
    with invocation.case(writing=True) as case, invocation.progress() as progress:
        source = sys.stdin.buffer if archive == "-" else Path(archive)
        records = case.images.import_archive(
            source, name=name, platform=platform, progress=progress
        )
    if invocation.as_json:
        print_document([_document(record) for record in records])
        return
    for record in records:
        click.echo(record.name)


@command.command()
@click.argument("reference", metavar="REF")
@click.option("--name", metavar="NAME", help="Name of the image here.  [default: REF in full]")
@click.option("--platform", type=PLATFORM, help="Platform to pull.  [default: this machine's]")
@output_options
@pass_invocation
def pull(
    invocation: Invocation, reference: str, name: str | None, platform: "Platform | None"
) -> None:
    """Pull an image from its registry and print its name.

    Downloaded and verified by two confined processes, blobs in parallel; what the store has is not
    downloaded, and what an interrupted pull had is gone on with. Credentials are those of
    "docker login"; mirrors and certificates come from containerd's certs.d. With --service always,
    and for users other than root, the service pulls, with its own credentials.

    JSON: an object as of "cas image ls", with size, downloaded (bytes) and signed_by.

    \b
    Example:
      cas image pull docker.io/library/alpine:3.20
      cas image pull registry.example.com/app:1 --platform linux/arm64
    """
    pulled = pull_image(
        invocation, reference.removeprefix("docker://"), name=name, platform=platform
    )
    if invocation.as_json:
        more = {
            "size": pulled.size,
            "downloaded": pulled.downloaded,
            "signed_by": pulled.signed_by,
        }
        print_document({**_document(pulled.record), **more})
    else:
        click.echo(pulled.record.name)


@command.command()
@click.argument("reference", metavar="REF")
@click.option("-o", "--output", required=True, metavar="FILE|-", help="Where to write the tar.")
@click.option(
    "--format",
    "archive_format",
    type=click.Choice(["oci", "docker"]),
    default="oci",
    show_default=True,
    help="oci keeps every digest; docker suits old engines.",
)
@output_options
@pass_invocation
def export(invocation: Invocation, reference: str, output: str, archive_format: str) -> None:
    """Write an image as a tar that skopeo, docker load and ctr read.

    JSON: name, output, format; nothing when the tar itself goes to stdout.

    \b
    Example:
      cas image export docker.io/library/alpine:3.20 -o alpine.tar
      cas image export alpine:3.20 -o - | ssh other cas image import -
    """
    from cas.store.image.export import ArchiveFormat

    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("not writing an archive to a terminal; redirect it")
    with invocation.case(writing=False) as case, invocation.progress() as progress:
        target = sys.stdout.buffer if output == "-" else Path(output)
        case.images.export(
            reference, target, format=ArchiveFormat(archive_format), progress=progress
        )
    if invocation.as_json and output != "-":
        print_document({"name": reference, "output": output, "format": archive_format})


@command.command(name="ls")
@click.option(
    "--filter", "filters", multiple=True, metavar="K=V", help="Show only matching images."
)
@output_options
@pass_invocation
def ls(invocation: Invocation, filters: tuple[str, ...]) -> None:
    """List images.

    Filter keys: reference=GLOB, label=K[=V], until=AGE, unused=AGE, dangling=true|false.

    JSON: an array of name, digest, media_type, target_size, created, updated, labels.

    \b
    Example:
      cas image ls --filter 'reference=docker.io/library/*'
    """
    from cas.store.filters import parse_image_filters

    with invocation.case(writing=False) as case:
        print_rows(
            invocation,
            case.images.iter_images(parse_image_filters(filters, now=invocation.now())),
            columns=(
                Column("NAME", 48, lambda record: record.name),
                Column(
                    "DIGEST",
                    12 if invocation.shortens else 71,
                    lambda record: (
                        record.target.digest.short
                        if invocation.shortens
                        else str(record.target.digest)
                    ),
                ),
                Column("UPDATED", 19, lambda record: local_time(record.updated)),
            ),
            identifier=lambda record: record.name,
            document=_document,
        )


@command.command()
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@output_options
@pass_invocation
def inspect(invocation: Invocation, references: tuple[str, ...]) -> None:
    """Print images with platforms, layers, sizes and state as a JSON array.

    \b
    Example:
      cas image inspect docker.io/library/alpine:3.20
    """
    with invocation.case(writing=False) as case:
        print_document([case.images.inspect(reference).as_document() for reference in references])


@command.command()
@click.argument("reference", metavar="REF")
@click.argument("new", metavar="NEW")
@output_options
@pass_invocation
def tag(invocation: Invocation, reference: str, new: str) -> None:
    """Give an image another name; a name that exists is moved.

    JSON: an object as of "cas image ls".

    \b
    Example:
      cas image tag docker.io/library/alpine:3.20 base:current
    """
    with invocation.case(writing=True) as case:
        record = case.images.tag(reference, new)
    if invocation.as_json:
        print_document(_document(record))
    else:
        click.echo(record.name)


@command.command(name="wrap")
@click.argument("digest", type=DIGEST)
@click.argument("name")
@output_options
@pass_invocation
def wrap(invocation: Invocation, digest: "Digest", name: str) -> None:
    """Make an image of a blob that is a disk image; the same blob gives the same image anywhere.

    JSON: an object as of "cas image ls".

    \b
    Example:
      cas image wrap sha256:0d1f... example.com/debian-vm:12
    """
    with invocation.case(writing=True) as case:
        record = case.images.wrap_disk(name, digest)
    if invocation.as_json:
        print_document(_document(record))
    else:
        click.echo(record.name)


@command.command(name="rm")
@click.argument("references", nargs=-1, required=True, metavar="REF...|-")
@click.option("--force", is_flag=True, help="Remove the name even if a volume was made from it.")
@click.option("--ignore", is_flag=True, help="Do not fail for an image that is not there.")
@output_options
@pass_invocation
def rm(invocation: Invocation, references: tuple[str, ...], force: bool, ignore: bool) -> int:
    """Remove image names; blobs and layers that nothing else needs go with them.

    JSON: an array of name, removed (false for one that --ignore passed over).

    \b
    Example:
      cas image rm docker.io/library/alpine:3.20
    """
    with invocation.case(writing=True) as case:

        def remove(reference: str) -> bool:
            removed = case.images.remove(reference, force=force)
            if not removed and not ignore:
                raise ImageNotFoundError(
                    f"no image is named {reference!r}; 'cas image ls' lists the names",
                    reference=reference,
                )
            return removed

        status = print_outcomes(
            invocation,
            attempt(expand_dash(references), remove),
            document=lambda name, removed: {"name": name, "removed": removed},
        )
        case.collect_garbage()
    return status


@command.command()
@click.argument("reference", metavar="REF")
@output_options
@pass_invocation
def exists(invocation: Invocation, reference: str) -> int:
    """Exit with 0 if an image has this name, with 3 if none has.

    JSON: name, exists.

    \b
    Example:
      cas image exists docker.io/library/alpine:3.20 || cas image import alpine.tar
    """
    with invocation.case(writing=False) as case:
        found = case.images.exists(reference)
    if invocation.as_json:
        print_document({"name": reference, "exists": found})
    return 0 if found else ImageNotFoundError.exit_code


@command.command()
@prune_options
@output_options
@pass_invocation
def prune(invocation: Invocation, /, **options: Any) -> int:
    """Remove images that no volume uses.

    \b
    Example:
      cas image prune --filter unused=14d --dry-run
      cas image prune --force --min-free 2GB
    """
    return run_prune(invocation, scope="images", **options)
