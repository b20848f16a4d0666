"""Both agents, loading while the store is being opened; imports next to nothing itself."""

__all__ = ["early_agents"]

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cas.agent.early_start import EarlyStart
from cas.downloader.program import downloader_program
from cas.errors import CasError
from cas.model.settings import Settings
from cas.verifier.program import verifier_program


@contextmanager
def early_agents(settings: Settings) -> Iterator[EarlyStart]:
    """Start both for a pull that is about to be asked for; see :meth:`cas.pull.pull.Pull.image`.

    What cannot be started is not missed here: the pull meets the reason again.
    """
    with EarlyStart() as early:
        with suppress(CasError):
            early.start(downloader_program(settings))
            early.start(verifier_program(settings))
        yield early
