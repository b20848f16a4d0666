"""``cas blob``: one command per use case of :class:`cas.store.content.blobs.Blobs`."""

__all__ = ["command"]

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.outcomes import print_outcomes
from cas.cli.output import (
    Column,
    local_time,
    print_acts,
    print_document,
    print_rows,
    timestamp,
)
from cas.cli.parameters import DIGEST, expand_dash
from cas.cli.pruning import prune_options, run_prune
from cas.errors import BlobNotFoundError, CasError, SourceNotFoundError, UsageError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, MEDIA_TYPE

if TYPE_CHECKING:
    from cas.model.records import BlobInfo
    from cas.store.content.ingest import Ingested


@click.group(name="blob", cls=NounGroup)
def command() -> None:
    """Blobs: content of any kind under its sha256 digest.

    \b
    Example:
      cas blob ingest disk.img
      cas blob ls -q | head
    """


def _document(blob: "BlobInfo") -> dict[str, object]:
    return {
        "digest": str(blob.digest),
        "size": blob.size,
        "media_type": blob.labels.get(MEDIA_TYPE),
        "pinned": bool(blob.labels.get(GC_ROOT)),
        "created": timestamp(blob.created),
        "labels": dict(sorted(blob.labels.items())),
    }


def _ingested(result: "Ingested") -> dict[str, object]:
    return {
        "digest": str(result.digest),
        "size": result.size,
        "way": str(result.way),
        "new": result.created,
    }


@command.command()
@click.argument("files", nargs=-1, metavar="FILE...|-")
@click.option("--digest", type=DIGEST, help="Refuse content of another digest (one FILE only).")
@click.option("--media-type", help="Remember this media type with the blob.")
@click.option("--move", is_flag=True, help="Take the file over instead of copying it.")
@click.option(
    "--files-from", type=click.Path(path_type=Path), help="Read more names, one per line."
)
@output_options
@pass_invocation
def ingest(
    invocation: Invocation,
    files: tuple[str, ...],
    digest: Digest | None,
    media_type: str | None,
    move: bool,
    files_from: Path | None,
) -> None:
    """Store files as blobs and print a digest per line, in order.

    A digest is printed when its blob is verified and durable. A blob that is there already is
    success. Blobs stay until removed: they are pinned. "-" reads one blob from stdin.

    JSON: an array of digest, size, way (seed, stream or existed), new (false if it was there).

    \b
    Example:
      cas blob ingest --digest sha256:6c3e...e1f0 disk.img
      curl -fs https://example.com/disk.img | cas blob ingest -
    """
    if not files and files_from is None:
        raise click.UsageError("give at least one FILE, or --files-from")
    if digest is not None and (len(files) != 1 or files_from is not None):
        raise click.UsageError("--digest goes with exactly one FILE")
    if "-" in files and (len(files) != 1 or move or files_from is not None):
        raise click.UsageError("'-' stands alone and cannot be moved")
    with invocation.case(writing=True) as case, invocation.progress() as progress:
        results: Iterator[Ingested]
        if files == ("-",):
            results = iter(
                [
                    case.blobs.ingest_stream(
                        sys.stdin.buffer, digest=digest, media_type=media_type, progress=progress
                    )
                ]
            )
        elif len(files) == 1 and files_from is None:
            results = iter(
                [
                    case.blobs.ingest(
                        Path(files[0]),
                        digest=digest,
                        media_type=media_type,
                        move=move,
                        progress=progress,
                    )
                ]
            )
        else:
            results = case.blobs.ingest_many(
                _paths(files, files_from), media_type=media_type, move=move, progress=progress
            )
        print_acts(invocation, results, line=lambda result: str(result.digest), document=_ingested)


def _paths(files: tuple[str, ...], files_from: Path | None) -> Iterator[Path]:
    yield from (Path(name) for name in files)
    if files_from is None:
        return
    try:
        source = nullcontext(sys.stdin.buffer) if str(files_from) == "-" else files_from.open("rb")
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"there is no list of files {str(files_from)!r}", path=files_from
        ) from error
    with source as lines:
        for line in lines:
            # Names are bytes and need not be text; none holds a zero, which a list of find -print0
            # does.
            if b"\0" in line:
                raise UsageError(f"{str(files_from)!r} is no list of one file name per line")
            if line.strip():
                yield Path(os.fsdecode(line.removesuffix(b"\n")))


@command.command(name="ls")
@click.option("--filter", "filters", multiple=True, metavar="K=V", help="Show only matching blobs.")
@click.option("--sort", type=click.Choice(["size", "age"]), help="Largest or oldest first.")
@output_options
@pass_invocation
def ls(invocation: Invocation, filters: tuple[str, ...], sort: str | None) -> None:
    """List blobs.

    Filter keys: label=K[=V], media-type=T, pinned=true|false, until=AGE, size>=SIZE (as
    "size>=1GB"). Values of one key are alternatives; different keys must all hold.

    JSON: an array of digest, size, media_type, pinned, created, labels.

    \b
    Example:
      cas blob ls --filter media-type=application/vnd.oci.image.config.v1+json
      cas blob ls --sort size | head
    """
    from cas.store.filters import parse_blob_filters

    with invocation.case(writing=False) as case:
        blobs = case.blobs.iter_blobs(parse_blob_filters(filters, now=invocation.now()))
        # Sorting needs the whole list: about 500 bytes per blob.
        if sort == "size":
            blobs = iter(sorted(blobs, key=lambda blob: -blob.size))
        elif sort == "age":
            blobs = iter(sorted(blobs, key=lambda blob: blob.created))
        from cas.model.sizes import format_size

        width = 12 if invocation.shortens else 71
        print_rows(
            invocation,
            blobs,
            columns=(
                Column(
                    "DIGEST",
                    width,
                    lambda blob: blob.digest.short if invocation.shortens else str(blob.digest),
                ),
                Column("SIZE", 9, lambda blob: format_size(blob.size)),
                Column("CREATED", 19, lambda blob: local_time(blob.created)),
                Column("PINNED", 6, lambda blob: "yes" if blob.labels.get(GC_ROOT) else ""),
                Column("MEDIA TYPE", 0, lambda blob: blob.labels.get(MEDIA_TYPE, "")),
            ),
            identifier=lambda blob: str(blob.digest),
            document=_document,
        )


@command.command()
@click.argument("digests", nargs=-1, required=True, type=DIGEST, metavar="DIGEST...")
@output_options
@pass_invocation
def inspect(invocation: Invocation, digests: tuple[Digest, ...]) -> None:
    """Print what is known of blobs as a JSON array.

    \b
    Example:
      cas blob inspect sha256:6c3e...e1f0
    """
    with invocation.case(writing=False) as case:
        print_document([_document(case.blobs.get(digest)) for digest in digests])


@command.command()
@click.argument("digest", type=DIGEST)
@click.option("--force", is_flag=True, help="Write to a terminal too.")
@output_options
@pass_invocation
def cat(invocation: Invocation, digest: Digest, force: bool) -> None:
    """Write a blob's bytes to stdout.

    \b
    Example:
      cas blob cat sha256:6c3e...e1f0 >disk.img
    """
    if sys.stdout.isatty() and not force:
        raise click.UsageError("not writing a blob to a terminal; redirect it or give --force")
    with invocation.case(writing=False) as case:
        for chunk in case.blobs.read(digest):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


@command.command(name="rm")
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...|-")
@click.option("--ignore", is_flag=True, help="Do not fail for a blob that is not there.")
@output_options
@pass_invocation
def rm(invocation: Invocation, digests: tuple[str, ...], ignore: bool) -> int:
    """Remove blobs that no image, volume or snapshot refers to.

    JSON: an array of digest, removed (false for one that --ignore passed over).

    \b
    Example:
      cas blob rm sha256:6c3e...e1f0
    """
    with invocation.case(writing=True) as case:
        outcomes = case.blobs.remove_many(map(DIGEST.parse, expand_dash(digests)))
        status = print_outcomes(
            invocation,
            outcomes if ignore else map(_require_removed, outcomes),
            document=lambda digest, removed: {"digest": str(digest), "removed": removed},
        )
        case.collect_garbage()
    return status


def _require_removed(
    outcome: tuple[Digest, "bool | CasError"],
) -> tuple[Digest, "bool | CasError"]:
    digest, removed = outcome
    if removed is not False:
        return outcome
    return digest, BlobNotFoundError(
        f"blob {digest} is not in the store; 'cas blob ls' lists what is", digest=digest
    )


@command.command()
@click.argument("digest", type=DIGEST)
@output_options
@pass_invocation
def exists(invocation: Invocation, digest: Digest) -> int:
    """Exit with 0 if the blob is in the store, with 3 if it is not.

    JSON: digest, exists.

    \b
    Example:
      cas blob exists sha256:6c3e...e1f0 && echo there
    """
    with invocation.case(writing=False) as case:
        found = case.blobs.exists(digest)
    if invocation.as_json:
        print_document({"digest": str(digest), "exists": found})
    return 0 if found else BlobNotFoundError.exit_code


@command.command()
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...|-")
@output_options
@pass_invocation
def missing(invocation: Invocation, digests: tuple[str, ...]) -> None:
    """Print those of the digests that the store does not hold.

    JSON: an array of digest.

    \b
    Example:
      cas blob missing - <digests.txt
    """
    with invocation.case(writing=False) as case:
        print_acts(
            invocation,
            case.blobs.missing(map(DIGEST.parse, expand_dash(digests))),
            line=str,
            document=lambda digest: {"digest": str(digest)},
        )


@command.command()
@prune_options
@output_options
@pass_invocation
def prune(invocation: Invocation, /, **options: Any) -> int:
    """Remove pinned blobs that match the filters, and blobs nothing refers to.

    \b
    Example:
      cas blob prune --filter until=30d --dry-run
    """
    return run_prune(invocation, scope="blobs", **options)
