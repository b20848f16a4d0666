"""``cas verify``: the verifier by hand."""

__all__ = ["command"]

from pathlib import Path

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document
from cas.model.layout import Layout


@click.command(name="verify")
@click.argument("names", nargs=-1, required=True, metavar="FILE...")
@output_options
@pass_invocation
def command(invocation: Invocation, names: tuple[str, ...]) -> None:
    """Verify downloaded files and print where they are now.

    FILE is a path that "cas download --unverified" has printed, or its name, <UUID>.<SHA256>. Each
    is taken from the downloader's directory, hashed by the confined verifier, and published under
    its sha256; one that is not what its name says is removed, and ends the command.

    JSON: an array of paths.

    \b
    Example:
      cas verify 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34.e3b0c44298fc1c149afbf4c8996fb924...
    """
    from cas.cli.vault_watch import ended_by_locking
    from cas.pull.by_hand import verify_downloads

    settings = invocation.settings()
    with ended_by_locking(settings):
        paths = verify_downloads(settings, [_name(settings.layout, each) for each in names])
    if invocation.as_json:
        print_document([str(path) for path in paths])
    else:
        for path in paths:
            click.echo(str(path))


def _name(layout: Layout, given: str) -> str:
    path = Path(given)
    return path.name if path.parent == layout.downloader else given
