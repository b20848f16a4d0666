"""``cas serve``: the service that volumemgr calls."""

__all__ = ["command"]

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options


@click.command(name="serve")
@click.option(
    "--metrics-address",
    metavar="ADDRESS",
    envvar="CAS_METRICS_ADDRESS",
    help="Serve Prometheus metrics at HOST:PORT, or at an absolute path.",
)
@click.option(
    "--stop-seconds",
    type=click.FloatRange(min=0),
    help="Let running calls go on for so long at the end.  [default: 20]",
)
@output_options
@pass_invocation
def command(
    invocation: Invocation, metrics_address: str | None, stop_seconds: float | None
) -> None:
    """Serve the store on a unix socket until SIGTERM or Ctrl-C.

    While the vault is locked it waits. It runs the store's containerd, unless --address names one
    that somebody else runs, and starts it again when it dies. The socket is /run/cas/cas.sock for
    /persist, else <persist>/run/cas.sock. It tells a service manager when it is ready and that it
    is alive. -v also tells every call, and what containerd logs.

    \b
    Example:
      cas --persist /tmp/p layout init && cas --persist /tmp/p serve
    """
    from dataclasses import replace

    from cas.cli.stop_signals import stop_on_signals
    from cas.daemon.log_lines import ServiceFormatter
    from cas.daemon.service import serve

    invocation.configure_logging(invocation.verbose + 1, ServiceFormatter())
    settings = invocation.settings()
    if metrics_address is not None:
        settings = replace(settings, metrics_address=metrics_address)
    if stop_seconds is not None:
        settings = replace(settings, stop_seconds=stop_seconds)
    with stop_on_signals() as stop:
        serve(settings, stop=stop)
