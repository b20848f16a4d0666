"""``cas completion``: scripts for shells, as click makes them."""

__all__ = ["command"]

import click
from click.shell_completion import get_completion_class

from cas.cli.lazy import output_options


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_options
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      cas completion bash >/etc/bash_completion.d/cas
    """
    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.UsageError(f"click cannot complete for {shell}")
    click.echo(completion_class(context.find_root().command, {}, "cas", "_CAS_COMPLETE").source())
