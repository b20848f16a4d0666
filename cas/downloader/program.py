"""Which program the downloader is; light, since it is started before anything else is loaded."""

__all__ = ["downloader_program"]

from cas.agent.account import find_account
from cas.agent.program import AgentProgram, module_command
from cas.model.settings import Settings


def downloader_program(settings: Settings) -> AgentProgram:
    """Give the downloader of a layout.

    Raises:
        LayoutError: Its account does not exist.
    """
    return AgentProgram(
        "downloader",
        module_command("cas.downloader"),
        settings.layout.downloader,
        find_account(settings.owners["downloader"]),
        require_confinement=settings.require_confinement,
    )
