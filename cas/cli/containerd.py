"""``cas containerd``: the store's own containerd."""

__all__ = ["command"]

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options


@click.group(name="containerd", cls=NounGroup)
def command() -> None:
    """The containerd that holds the store.

    \b
    Example:
      cas containerd run
    """


@command.command()
@output_options
@pass_invocation
def run(invocation: Invocation) -> None:
    """Run containerd rooted at <persist>/vault/case until SIGTERM or Ctrl-C.

    It is started with a hardened store-only configuration, started again when it dies, and its
    log goes to stderr. While the vault is locked it waits.

    \b
    Example:
      cas --persist /tmp/p layout init && cas --persist /tmp/p containerd run
    """
    from cas.cli.stop_signals import stop_on_signals
    from cas.daemon.supervision import run_containerd

    settings = invocation.settings()
    with stop_on_signals() as stop:
        run_containerd(settings, announce=lambda line: click.echo(line, err=True), stop=stop)


@command.command()
@output_options
@pass_invocation
def config(invocation: Invocation) -> None:
    """Print the configuration that "run" would use.

    \b
    Example:
      cas containerd config | containerd -c /dev/stdin
    """
    from cas.containerd.config import render

    click.echo(render(invocation.settings()), nl=False)
