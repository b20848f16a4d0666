"""Starts an agent, asks it, and outlives it."""

__all__ = ["AgentProcess"]

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Self, TypeVar

import msgspec

from cas.agent.conversation import Conversation, ProgressReceiver
from cas.agent.messages import Start
from cas.agent.program import AgentProgram, Launch, launch_agent, pipe_of
from cas.errors import AgentError, CasError, ConfinementError
from cas.model.cancellation import Cancellation
from cas.model.printable import printable

_log = logging.getLogger(__name__)

_WORDS_BYTES = 4096
"""Longest line of an agent's log that is passed on."""
_LEAVE_SECONDS = 2.0

_Value = TypeVar("_Value", bound=msgspec.Struct)


class AgentProcess:
    """A running agent; a context manager. It may be asked from several threads at once.

    The kernel kills the agent when the thread that entered the context ends, so that thread stays
    until all calls are done. Leaving the context ends the agent, at once if calls are running.

    Args:
        program: Which agent.
        options: What it is told at the start, credentials included, as JSON.
        launch: Gives its process; may be one that was started before.
    """

    def __init__(
        self, program: AgentProgram, options: bytes, *, launch: Launch = launch_agent
    ) -> None:
        self._program = program
        self._launch = launch
        self._options = options
        self._introduction = threading.Lock()
        self._missing: dict[str, str] | None = None

    def __enter__(self) -> Self:
        """Start it, without waiting until it is ready: several can do that at once.

        Raises:
            AgentError: There is no such program, or no such directory.
        """
        self._process = self._launch(self._program)
        self._conversation = Conversation(
            pipe_of(self._process.stdin), pipe_of(self._process.stdout)
        )
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._listen, self._relay)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        request: msgspec.Struct,
        answer: type[_Value],
        *,
        cancel: Cancellation | None = None,
        progress: ProgressReceiver | None = None,
    ) -> _Value:
        """Ask, and wait for the answer.

        Args:
            request: What the agent understands.
            answer: What it answers with.
            cancel: Ends the call; the agent puts away what it began.
            progress: Told how far it is.

        Raises:
            CasError: What the agent raised: the same class with the same words.
            ConfinementError: It cannot be confined as it must.
            AgentError: It ended, or does not behave as it must.
            InterruptedOperationError: ``cancel`` was set.
        """
        self.missing()
        return self._conversation.ask(request, answer, cancel=cancel, progress=progress)

    def missing(self) -> Mapping[str, str]:
        """Wait until it is confined, and give what could not be had of that, with the reason.

        Raises:
            ConfinementError: It cannot be confined as it must.
            CasError: It cannot work with its options.
            AgentError: It ended.
        """
        with self._introduction:
            if self._missing is None:
                self._missing = self._introduce()
        return self._missing

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def close(self) -> None:
        """End it: after its last call by the end of the pipe, else by a signal. Idempotent."""
        # One that is still loading does not look at its pipe.
        if self._missing is None or self._conversation.busy:
            self._process.kill()
        pipe_of(self._process.stdin).close()
        self._wait()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            pipe_of(pipe).close()

    def _introduce(self) -> dict[str, str]:
        ready = self._conversation.start(
            Start(
                user=self._program.account.user,
                group=self._program.account.group,
                parent=os.getpid(),
                log_level=_log.getEffectiveLevel(),
                options=msgspec.Raw(self._options),
            )
        )
        for wall, reason in ready.missing.items():
            self._lacks(wall, reason)
        return ready.missing

    def _lacks(self, wall: str, reason: str) -> None:
        name = self._program.name
        if self._program.require_confinement:
            raise ConfinementError(
                f"the {name} lacks {wall}: {reason}; it is required by require_confinement",
                agent=name,
                missing=wall,
            )
        _warn_once(name, wall, reason)

    def _listen(self) -> None:
        try:
            self._conversation.listen()
        except CasError as nonsense:
            self._process.kill()
            self._conversation.end(nonsense)
        self._conversation.end(self._obituary(self._wait()))

    def _wait(self) -> int:
        """Give its status; one that lives on without its pipes is killed."""
        try:
            return self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _obituary(self, status: int) -> AgentError:
        how = f"with status {status}" if status >= 0 else f"by {_signal_name(-status)}"
        return AgentError(
            f"the {self._program.name} (process {self._process.pid}) ended {how}; run the command "
            "again, with -v for what it said",
            agent=self._program.name,
            status=status,
        )

    def _relay(self) -> None:
        """Pass on its log."""
        words = pipe_of(self._process.stderr)
        while line := words.readline(_WORDS_BYTES):
            text = printable(line.decode(errors="replace").rstrip())
            _log.info("agent says agent=%s words=%s", self._program.name, text)


@lru_cache(maxsize=64)
def _warn_once(name: str, wall: str, reason: str) -> None:
    """Each pull starts agents anew, and a machine lacks the same every time."""
    _log.warning("agent lacks confinement agent=%s wall=%s reason=%s", name, wall, reason)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
