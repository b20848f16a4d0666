"""Agents that load their libraries while whoever will ask them does something else."""

__all__ = ["EarlyStart"]

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from cas.agent.program import AgentProgram, launch_agent, pipe_of
from cas.errors import AgentError

if TYPE_CHECKING:
    import subprocess


class EarlyStart:
    """Processes that wait to be taken; a context manager, which ends those that were not.

    They know nothing and have done nothing but load. May be used by several threads; the one that
    starts them has to stay until they are done.
    """

    def __init__(self) -> None:
        self._waiting: dict[AgentProgram, subprocess.Popen[bytes]] = {}
        self._guard = threading.Lock()

    def start(self, program: AgentProgram) -> None:
        """Start one; if it cannot be started, whoever asks for it will be told."""
        with suppress(AgentError), self._guard:
            if program not in self._waiting:
                self._waiting[program] = launch_agent(program)

    def launch(self, program: AgentProgram) -> "subprocess.Popen[bytes]":
        """Give the process that was started, once, or else a new one.

        A :data:`cas.agent.program.Launch`; raises as :func:`cas.agent.program.launch_agent`.
        """
        with self._guard:
            waiting = self._waiting.pop(program, None)
        return launch_agent(program) if waiting is None else waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            waiting, self._waiting = list(self._waiting.values()), {}
        for process in waiting:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe_of(pipe).close()
