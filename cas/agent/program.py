"""Which agent to start, and its process, which nobody has told anything yet."""

__all__ = ["AgentProgram", "Launch", "launch_agent", "module_command", "pipe_of"]

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cas.agent.account import Account
from cas.errors import AgentError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""Nothing of ours: it may hold credentials, and stays readable while the process lives."""


@dataclass(frozen=True, slots=True)
class AgentProgram:
    """Which agent to start.

    Args:
        name: What messages call it, such as ``downloader``.
        command: The program and its arguments; see :func:`module_command`.
        directory: Its working directory, the only one that it may write in.
        account: Who it runs as.
        require_confinement: Refuse to work with it when a part of its confinement is missing.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    account: Account
    require_confinement: bool = False


Launch = Callable[[AgentProgram], "subprocess.Popen[bytes]"]
"""Gives a process of an agent, with three pipes; raises as :func:`launch_agent`."""


def module_command(module: str) -> tuple[str, ...]:
    """Give the command that runs a module of ours in this Python."""
    # Isolated: no settings from the environment, no modules from the working directory.
    return (sys.executable, "-I", "-m", module)


def launch_agent(program: AgentProgram) -> "subprocess.Popen[bytes]":
    """Start a process; it loads what it needs and waits to be told who to be.

    The kernel kills it when the thread that called this ends.

    Raises:
        AgentError: There is no such program, or no such directory.
    """
    try:
        return subprocess.Popen(
            program.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=program.directory,
            env=_ENVIRONMENT,
            start_new_session=True,  # Ctrl-C reaches it through this process, in order
        )
    except OSError as error:
        raise AgentError(
            f"the {program.name} cannot be started in {str(program.directory)!r}: {error.strerror}",
            directory=program.directory,
        ) from error


def pipe_of(stream: IO[bytes] | None) -> IO[bytes]:
    """Give a pipe that :func:`launch_agent` made."""
    if stream is None:
        raise AgentError("an agent was started without pipes")
    return stream
