"""``cas version``."""

__all__ = ["command"]

from typing import TYPE_CHECKING

import click

import cas
from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document
from cas.errors import DaemonUnavailableError
from cas.model.settings import ServiceUse

if TYPE_CHECKING:
    from cas.model.settings import Settings


@click.command(name="version")
@output_options
@pass_invocation
def command(invocation: Invocation) -> None:
    """Show the versions of cas, of the service where one answers, and of the containerd.

    A containerd that does not answer is said and is no failure.

    JSON: cas, containerd (null when it does not answer), socket, content_root, snapshotter, service
    (null when commands open the store themselves, or its version and socket).

    \b
    Example:
      cas version --json
    """
    settings = invocation.settings()
    document = _of_service(invocation, settings) or _of_containerd(settings)
    if invocation.as_json:
        print_document(document)
        return
    click.echo(f"cas         {document['cas']}")
    click.echo(f"containerd  {document['containerd'] or 'not running'}")
    click.echo(f"socket      {document['socket']}")
    click.echo(f"service     {_service_line(document, settings)}")


def _service_line(document: dict[str, object], settings: "Settings") -> str:
    if document["service"]:
        return str(settings.service_socket)
    if settings.service is ServiceUse.NEVER:
        return "not asked, as --service never wants it"
    return f"none of this store answers on {settings.service_socket}"


def _of_service(invocation: Invocation, settings: "Settings") -> dict[str, object] | None:
    client = invocation.client(settings)
    if client is None:
        return None
    with client:
        facts = client.facts
    return {
        "cas": cas.__version__,
        "containerd": facts.containerd,
        "socket": str(facts.address),
        "content_root": None if facts.content_root is None else str(facts.content_root),
        "snapshotter": facts.snapshotter,
        "service": {"cas": facts.cas, "socket": str(settings.service_socket)},
    }


def _of_containerd(settings: "Settings") -> dict[str, object]:
    from cas.containerd.client import Containerd

    document: dict[str, object] = {
        "cas": cas.__version__,
        "containerd": None,
        "socket": str(settings.socket),
        "content_root": None,
        "snapshotter": settings.snapshotter,
        "service": None,
    }
    try:
        with Containerd.connect(
            settings.socket, namespace=settings.namespace, snapshotter=settings.snapshotter
        ) as containerd:
            document["containerd"] = containerd.facts.version_text
            root = containerd.facts.content_root
            document["content_root"] = None if root is None else str(root)
    except DaemonUnavailableError as error:
        click.echo(f"cas: {error.message}", err=True)
    return document
