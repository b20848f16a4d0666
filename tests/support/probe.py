"""Runs the probe agent and asks it."""

import sys
from pathlib import Path

import msgspec

from cas.agent.account import Account
from cas.agent.process import AgentProcess
from cas.agent.program import AgentProgram
from tests.support import probe_agent
from tests.support.probe_agent import Attempt, Options, Outcome


class Probe(AgentProcess):
    """A confined process that does what it is told.

    Args:
        directory: Its own.
        account: Who it runs as.
        options: See :class:`tests.support.probe_agent.Options`.
        require: Whether a missing part of the confinement is fatal.
    """

    def __init__(
        self, directory: Path, account: Account, *, require: bool = True, **options: object
    ) -> None:
        root = Path(probe_agent.__file__).parents[2]
        launcher = f"import sys; sys.path.insert(0, {str(root)!r}); "
        launcher += "from tests.support.probe_agent import prepare; "
        launcher += "from cas.agent.serving import serve; serve(prepare)"
        command = (sys.executable, "-I", "-c", launcher)
        program = AgentProgram("probe", command, directory, account, require_confinement=require)
        super().__init__(program, msgspec.json.encode(msgspec.convert(options, Options)))

    def attempt(self, code: str, **how: object) -> str:
        """Give the value of an expression in the agent, or the name of the errno it met."""
        return self.call(Attempt(code), Outcome, **how).value  # type: ignore[arg-type]
