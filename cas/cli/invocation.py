"""One call of the ``cas`` command: its global options, its settings, its output."""

__all__ = ["Invocation", "pass_invocation"]

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cas.errors import CasError, UsageError
from cas.model.printable import printable
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.settings import ServiceUse, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from cas.app import Case
    from cas.rpc.client import Client
    from cas.rpc.client.volumes import VolumesClient
    from cas.volumes.disk.clear import ClearDisks
    from cas.volumes.volumes import Volumes


class _Formatter(logging.Formatter):
    """What is logged may quote servers, and shall command no terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        return printable(super().formatMessage(record))


class Invocation:
    """What the global options said, and what follows from it."""

    def __init__(self) -> None:
        self.persist: Path | None = None
        self.address: Path | None = None
        self.namespace: str | None = None
        self.config: Path | None = None
        self.service: ServiceUse | None = None
        self.service_address: Path | None = None
        self.as_json = False
        self.quiet = False
        self.no_trunc = False
        self.progress_mode = "auto"
        self.verbose = 0

    def configure_logging(self, verbose: int, formatter: logging.Formatter | None = None) -> None:
        """Send the ``cas`` logger to stderr; nothing else is touched."""
        self.verbose = verbose
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter or _Formatter("cas: %(levelname)s: %(message)s"))
        logger = logging.getLogger("cas")
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])

    def settings(self) -> Settings:
        """Merge configuration file, environment and options.

        Raises:
            ConfigError: The file cannot be read or holds a wrong value.
        """
        from cas.cli.configuration import load_settings

        return load_settings(
            self.config,
            persist=self.persist,
            address=self.address,
            namespace=self.namespace,
            service=self.service,
            service_address=self.service_address,
        )

    def client(self, settings: Settings) -> "Client | None":
        """Connect to the service; see :func:`cas.cli.service.connect_service`."""
        from cas.cli.service import connect_service

        return connect_service(settings, on_wait=self._tell_wait)

    def _tell_wait(self) -> None:
        """Say on a terminal why nothing happens."""
        if sys.stderr.isatty() and not self.quiet:
            click.echo("cas: waiting for the service, which opens its store", err=True)

    @contextmanager
    def case(self, *, writing: bool) -> Iterator["Case | Client"]:
        """Open the store for one command: through its service where that answers, else directly.

        Args:
            writing: The command changes something, so vault and layout are checked first.
        """
        settings = self.settings()
        client = self.client(settings)
        if client is not None:
            with client:
                yield client
            return
        from cas.app import Case
        from cas.cli.vault_watch import ended_by_locking

        with Case.open(settings, writing=writing) as case, ended_by_locking(settings):
            yield case

    def clear_disks(self) -> "ClearDisks | None":
        """Give the disks outside the vault while that is locked; None where the store is open.

        The service would refuse, and must therefore not have to be used.
        """
        settings = self.settings()
        if settings.service is ServiceUse.ALWAYS or os.geteuid() != 0:
            return None
        from cas.store.guard import VaultGuard

        guard = VaultGuard.of(settings)
        if not guard.is_closed():
            return None
        from cas.app import open_clear_disks

        return open_clear_disks(settings)

    @contextmanager
    def volumes(self, *, writing: bool) -> Iterator["Volumes | VolumesClient | ClearDisks"]:
        """Give the volumes; while the vault is locked those that are not in it, where possible.

        Args:
            writing: As of :meth:`case`.
        """
        clear = self.clear_disks()
        if clear is not None:
            yield clear
            return
        with self.case(writing=writing) as case:
            yield case.volumes

    @contextmanager
    def own_case(self) -> Iterator["Case"]:
        """Open the store in this process, for writing, also where a service serves it.

        For what starts agents: they die with the process that asked for them.

        Raises:
            UsageError: The service must be used.
        """
        from cas.app import Case
        from cas.cli.vault_watch import ended_by_locking

        settings = self.settings()
        if settings.service is ServiceUse.ALWAYS:
            raise UsageError(
                "the service has no call for this command; run it as root with --service auto or "
                "never"
            )
        with Case.open(settings) as case, ended_by_locking(settings):
            yield case

    def now(self) -> datetime:
        """The current time, aware UTC."""
        return datetime.now(UTC)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give the progress display that the options and the terminal ask for."""
        if self.quiet or self.progress_mode == "none":
            yield NO_PROGRESS
            return
        if self.progress_mode == "auto" and not sys.stderr.isatty():
            yield NO_PROGRESS
            return
        from cas.cli.progress import open_progress

        with open_progress(self.progress_mode) as progress:
            yield progress

    @property
    def shortens(self) -> bool:
        """Whether tables shorten digests: on a terminal only."""
        return sys.stdout.isatty() and not self.no_trunc

    def report(self, error: CasError) -> int:
        """Print an error of the library; gives its exit status."""
        self._print_error(error.as_document(), f"{error.message} [{error.reference}]")
        if not self.as_json:
            for note in getattr(error, "__notes__", ()):
                click.echo(printable(f"cas: note: {note}"), err=True)
        return error.exit_code

    def report_usage(self, error: click.UsageError) -> int:
        """Print a usage error; gives its exit status."""
        if not self.as_json:
            error.show(file=sys.stderr)
            click.echo(f"[{UsageError.reference}]", err=True)
            return UsageError.exit_code
        return self.report(UsageError(error.format_message()))

    def report_internal(self, error: Exception) -> int:
        """Print that the program itself is wrong, without a traceback; gives the exit status."""
        message = (
            f"internal error: {type(error).__name__}: {error}; this is a defect of cas, "
            "please report it with the output of the same command under -vv"
        )
        document: dict[str, object] = {
            "reference": "internal-error",
            "kind": "failed",
            "message": message,
            "details": {},
        }
        self._print_error(document, f"{message} [internal-error]")
        logging.getLogger(__name__).debug("internal error", exc_info=error)
        return CasError.exit_code

    def _print_error(self, document: dict[str, object], line: str) -> None:
        text = json.dumps({"error": document}) if self.as_json else printable(f"cas: {line}")
        click.echo(text, err=True)


pass_invocation = click.make_pass_decorator(Invocation)
