"""Entry point of the ``cas`` command: global options, lazy commands, errors to exit codes."""

__all__ = ["COMMANDS", "cli", "main"]

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from cas.cli.invocation import Invocation
from cas.cli.lazy import LazyGroup, output_options
from cas.errors import CasError, InterruptedOperationError, StorageError
from cas.model.settings import ServiceUse

COMMANDS = {
    "blob": ("cas.cli.blob", "Blobs: ingest, list, inspect, read, remove."),
    "check": ("cas.cli.check", "Verify the store's invariants; repair what can be repaired."),
    "completion": ("cas.cli.completion", "Print the completion script of a shell."),
    "containerd": ("cas.cli.containerd", "Run the store's containerd, or show its configuration."),
    "download": ("cas.cli.download", "Download a file into the store, or for a verification."),
    "df": ("cas.cli.df", "Show what uses the disk, by owner."),
    "image": ("cas.cli.image", "Images: pull, import, export, list, inspect, tag, remove, prune."),
    "layout": ("cas.cli.layout", "Create, show and check the directories of the layout."),
    "prune": ("cas.cli.prune", "Remove what nothing refers to."),
    "serve": ("cas.cli.serve", "Serve the store to other programs on a unix socket."),
    "upgrade": ("cas.cli.upgrade", "Convert what older software left in the old layout."),
    "verify": ("cas.cli.verify", "Verify downloaded files with the confined verifier."),
    "vault": ("cas.cli.vault", "Vaults: encrypt, unlock, lock, reseal, recover."),
    "version": ("cas.cli.version", "Show the versions of cas and of its containerd."),
    "volume": ("cas.cli.volume", "Volumes: prepare, activate, deactivate, list, remove."),
    "why": ("cas.cli.why", "Explain what keeps a blob, an image, a snapshot or a volume."),
}

_PLACE = click.Path(path_type=Path, readable=False)
"""Also one that the user may not look at: the service may be all that he can reach."""


@click.group(
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or in use, "
    "5 integrity, 6 no space, 7 vault, 8 containerd unavailable, 9 denied, 130 interrupted.",
)
@click.option(
    "--persist",
    type=_PLACE,
    envvar="CAS_PERSIST",
    help="The persist directory.  [default: /persist]",
)
@click.option(
    "-a",
    "--address",
    type=_PLACE,
    envvar=["CAS_ADDRESS", "CONTAINERD_ADDRESS"],
    help="Use the containerd on this socket.  [default: the one under --persist]",
)
@click.option(
    "-n",
    "--namespace",
    envvar=["CAS_NAMESPACE", "CONTAINERD_NAMESPACE"],
    help="containerd namespace.  [default: eve-user-apps]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="CAS_CONFIG",
    help="Configuration file (TOML).  [default: /etc/cas/config.toml where it exists]",
)
@click.option(
    "--service",
    type=click.Choice(ServiceUse, case_sensitive=False),
    envvar="CAS_SERVICE",
    help="Go through the service, or open the store here; auto does what works.  [default: auto]",
)
@click.option(
    "--service-address",
    type=_PLACE,
    envvar="CAS_SERVICE_ADDRESS",
    help="Socket of the service.  [default: /run/cas/cas.sock, or the one under --persist]",
)
@click.option("-v", "--verbose", count=True, help="Say more on stderr; -vv tells remote calls too.")
@output_options
@click.pass_context
def cli(
    context: click.Context,
    persist: Path | None,
    address: Path | None,
    namespace: str | None,
    config: Path | None,
    service: ServiceUse | None,
    service_address: Path | None,
    verbose: int,
) -> None:
    """Keep blobs, images and volumes of an edge device in a containerd of their own.

    \b
    Example:
      cas image import alpine.tar --name docker.io/library/alpine:3.20
      cas volume prepare 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0 \\
          --image docker.io/library/alpine:3.20 --activate
    """
    invocation: Invocation = context.obj
    invocation.persist = persist
    invocation.address = address
    invocation.namespace = namespace
    invocation.config = config
    invocation.service = service
    invocation.service_address = service_address
    invocation.configure_logging(verbose)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``cas`` command.

    Args:
        argv: Arguments without the program name; None means the process's own.

    Returns:
        The exit status: 0 done, else as documented in ``cas --help``. Nothing is raised.
    """
    invocation = Invocation()
    try:
        # Both unwind, so that leases, mounts and partial files are put away.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        status = cli.main(
            args=None if argv is None else list(argv),
            prog_name="cas",
            standalone_mode=False,
            obj=invocation,
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.UsageError as error:
        return invocation.report_usage(error)
    except (click.Abort, KeyboardInterrupt):
        return invocation.report(
            InterruptedOperationError("interrupted; what was begun has been undone")
        )
    except CasError as error:
        return invocation.report(error)
    except BrokenPipeError:
        # The reader left; a second flush at exit would complain about it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (open until exit)
        return 0
    except OSError as error:
        return invocation.report(StorageError(f"{error}"))
    except Exception as error:  # noqa: BLE001 (the last border: no traceback reaches a user)
        return invocation.report_internal(error)
