"""Starting the program: what it imports, what it says of itself."""

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from cas.cli.main import COMMANDS, cli
from tests.cli.conftest import RunCas

HEAVY = ("grpc", "google.protobuf", "requests", "tqdm", "msgspec", "subprocess", "tarfile")


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(child, (*path, name))


@pytest.mark.parametrize("arguments", [["--help"], ["volume", "--help"], ["blob", "ls", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """Asking for help costs no import of grpc, requests and the like."""
    script = (
        "import sys, json; from cas.cli.main import main; status = main(sys.argv[1:]);"
        f"print(json.dumps([status, [m for m in {HEAVY!r} if m in sys.modules]]), file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stderr) == [0, []]


@pytest.mark.parametrize("path", list(_commands(cli, ())), ids=" ".join)
def test_help_of_every_command_shows_an_example(path: tuple[str, ...], run_cas: RunCas) -> None:
    """Every help text says what the command does and how it is typed."""
    result = run_cas(*path, "--help")

    assert result.status == 0
    assert "Example:" in result.out
    assert f"cas {' '.join(path)}".strip() in result.out or "cas " in result.out
    assert result.err == ""


def test_summaries_of_lazy_commands_match_their_modules() -> None:
    """The list that is shown without importing names only commands that exist."""
    context = click.Context(cli)

    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_no_arguments_print_help(run_cas: RunCas) -> None:
    """A bare ``cas`` explains itself."""
    result = run_cas()

    assert "Commands:" in result.out + result.err


@pytest.mark.parametrize(("typed", "meant"), [("images", "image"), ("volumes", "volume")])
def test_plural_nouns_are_understood(typed: str, meant: str, run_cas: RunCas) -> None:
    """Whoever types the plural gets the noun."""
    assert (
        run_cas(typed, "--help").out.splitlines()[2:]
        == run_cas(meant, "--help").out.splitlines()[2:]
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_of_each_shell_names_the_program(shell: str, run_cas: RunCas) -> None:
    """The script completes ``cas`` by asking it."""
    result = run_cas("completion", shell)

    assert result.status == 0
    assert "_CAS_COMPLETE" in result.out


def test_completion_of_a_prefix_gives_the_noun() -> None:
    """The shell's question is answered with the command that fits."""
    done = subprocess.run(
        [sys.executable, "-m", "cas"],
        env={"_CAS_COMPLETE": "bash_complete", "COMP_WORDS": "cas vol", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["plain,volume"]
