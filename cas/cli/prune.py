"""``cas prune``."""

__all__ = ["command"]

from typing import Any

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.pruning import prune_options, run_prune


@click.command(name="prune")
@prune_options
@output_options
@pass_invocation
def command(invocation: Invocation, /, **options: Any) -> int:
    """Remove what nothing refers to.

    Images that no volume uses, leases and unfinished writes of dead processes, downloads that
    nobody went on with for an hour, and the blobs and layers that go with all that. Pinned blobs
    go only when a filter selects them. Whatever an image, a volume or a running operation needs
    stays.

    Filter keys: until=AGE, unused=AGE, label=K[=V], reference=GLOB (images), dangling=true
    (images), media-type=T, "size>=SIZE" (blobs). Ages are as 30m, 24h, 7d.

    Exits with 6 when --keep-at-most or --min-free is not reached, and says what holds the rest.

    JSON: dry_run, objects (kind, name, action, reason, size), size, missing, holders.

    \b
    Example:
      cas prune --dry-run
      cas prune --force --filter unused=14d
      cas prune --force --min-free 2GB
    """
    return run_prune(invocation, scope="all", **options)
