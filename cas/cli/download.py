"""``cas download``: a single file from where it is published."""

__all__ = ["command"]

from typing import TYPE_CHECKING
from uuid import UUID

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document
from cas.cli.parameters import DIGEST, SIZE
from cas.cli.pulling import pull_file

if TYPE_CHECKING:
    from cas.model.digest import Digest


@click.command(name="download")
@click.argument("url", metavar="URL")
@click.option("--digest", type=DIGEST, required=True, help="sha256 that the file must have.")
@click.option("--size", type=SIZE, help="Size that it must have, in bytes or with a unit.")
@click.option("--media-type", metavar="TYPE", help="Remembered with the blob.")
@click.option("--uuid", type=click.UUID, help="Of the image that the file is for.")
@click.option("--unverified", is_flag=True, help="Only download; print the file's path.")
@output_options
@pass_invocation
def command(
    invocation: Invocation,
    url: str,
    digest: "Digest",
    size: int | None,
    media_type: str | None,
    uuid: UUID | None,
    unverified: bool,
) -> None:
    """Download a file, verify it, and store it as a blob; print its digest.

    URL may be of http, https, s3, azure, gs, sftp or file. Credentials and keys come from tables
    [datastore."URL"] of the configuration. With --unverified the file stays in the downloader's
    directory, for "cas verify". With --service always, and for users other than root, the service
    downloads, by its own configuration, and no files of its machine.

    JSON: an object of digest, size, created; with --unverified of path, size, received.

    \b
    Example:
      cas download https://example.com/disk.qcow2 --digest sha256:...
    """
    if unverified:
        _download(invocation, url, digest, size, uuid)
        return
    stored = pull_file(invocation, url, digest, size=size, media_type=media_type, image=uuid)
    if invocation.as_json:
        print_document(
            {"digest": str(stored.digest), "size": stored.size, "created": stored.created}
        )
    else:
        click.echo(str(stored.digest))


def _download(
    invocation: Invocation, url: str, digest: "Digest", size: int | None, uuid: UUID | None
) -> None:
    from cas.cli.vault_watch import ended_by_locking
    from cas.pull.by_hand import download_unverified

    settings = invocation.settings()
    with ended_by_locking(settings), invocation.progress() as progress:
        path, fetched = download_unverified(
            settings, url, digest, size=size, image=uuid, progress=progress
        )
    if invocation.as_json:
        document = {"path": str(path), "size": fetched.size, "received": fetched.received}
        print_document(document)
    else:
        click.echo(str(path))
