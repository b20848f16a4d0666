"""Which program the verifier is; light, since it is started before anything else is loaded."""

__all__ = ["verifier_program"]

from cas.agent.account import find_account
from cas.agent.program import AgentProgram, module_command
from cas.model.settings import Settings


def verifier_program(settings: Settings) -> AgentProgram:
    """Give the verifier of a layout.

    Raises:
        LayoutError: Its account does not exist.
    """
    return AgentProgram(
        "verifier",
        module_command("cas.verifier"),
        settings.layout.verifier,
        find_account(settings.owners["verifier"]),
        require_confinement=settings.require_confinement,
    )
