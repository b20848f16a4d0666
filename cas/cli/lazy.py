"""Groups whose commands are imported when they are called, and the options all commands share."""

__all__ = ["LazyGroup", "NounGroup", "output_options"]

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

_ALIASES = {
    "list": "ls",
    "remove": "rm",
    "delete": "rm",
    "info": "inspect",
    "blobs": "blob",
    "images": "image",
    "volumes": "volume",
}

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def _resolve(name: str, known: Mapping[str, object]) -> str:
    return _ALIASES.get(name, name) if name not in known else name


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them.

    Args:
        lazy_commands: Name to (module that defines ``command``, one-line summary).
    """

    def __init__(
        self, *args: Any, lazy_commands: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy_commands or {})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """List all names; imports nothing."""
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of one command."""
        name = _resolve(cmd_name, self._lazy)
        if name not in self._lazy:
            return None
        command = importlib.import_module(self._lazy[name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(self._lazy[name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the command list from the summaries; imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name][1]) for name in sorted(self._lazy)])


class NounGroup(click.Group):
    """The verbs of one noun; understands the plural and the common synonyms of verbs."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a verb by its name or a synonym."""
        return super().get_command(ctx, _resolve(cmd_name, self.commands))


def _store(attribute: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value:
            setattr(context.obj, attribute, value)

    return callback


def output_options(function: _Decorated) -> _Decorated:
    """Add the options that are understood before and after the command's name."""
    for option in (
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_store("as_json"),
            help="Print one JSON document; errors too, on stderr.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_store("quiet"),
            help="Print identifiers only, one per line, and no progress.",
        ),
        click.option(
            "--progress",
            type=click.Choice(["auto", "plain", "json", "none"]),
            expose_value=False,
            callback=_store("progress_mode"),
            help="How to show progress on stderr.  [default: auto]",
        ),
        click.option(
            "--no-trunc",
            is_flag=True,
            expose_value=False,
            callback=_store("no_trunc"),
            help="Do not shorten digests in tables.",
        ),
    ):
        function = option(function)
    return function
