"""``cas version``."""

__all__ = ["command"]

import click

import cas
from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document
from cas.errors import DaemonUnavailableError


@click.command(name="version")
@output_options
@pass_invocation
def command(invocation: Invocation) -> None:
    """Show the versions of cas and of the containerd it finds.

    A containerd that does not answer is said and is no failure.

    JSON: cas, containerd (null when it does not answer), socket, content_root, snapshotter.

    \b
    Example:
      cas version --json
    """
    from cas.containerd.client import Containerd

    settings = invocation.settings()
    document: dict[str, object] = {
        "cas": cas.__version__,
        "containerd": None,
        "socket": str(settings.socket),
        "content_root": None,
        "snapshotter": settings.snapshotter,
    }
    try:
        with Containerd.connect(
            settings.socket, namespace=settings.namespace, snapshotter=settings.snapshotter
        ) as containerd:
            document["containerd"] = containerd.facts.version_text
            document["content_root"] = str(containerd.facts.content_root)
    except DaemonUnavailableError as error:
        click.echo(f"cas: {error.message}", err=True)
    if invocation.as_json:
        print_document(document)
        return
    click.echo(f"cas         {document['cas']}")
    click.echo(f"containerd  {document['containerd'] or 'not running'}")
    click.echo(f"socket      {document['socket']}")
