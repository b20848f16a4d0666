"""A layout that belongs to the real accounts of the agents, and confined processes in it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cas.agent.account import find_account
from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.daemon import WAIT_SECONDS, persist_directory
from tests.support.probe import Probe


@pytest.fixture(autouse=True)
def _long_obedience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up no agent because the machine is slow; tests may choose their own time."""
    monkeypatch.setattr("cas.agent.conversation._OBEY_SECONDS", WAIT_SECONDS)


@pytest.fixture(scope="session")
def agent_settings() -> Iterator[Settings]:
    """Settings of a layout whose owners are the accounts that a device has."""
    with persist_directory() as persist:
        persist.chmod(0o755)
        settings = Settings(persist=persist)
        create_directories(settings, repair=True)
        yield settings


StartProbe = Callable[..., Probe]


@pytest.fixture
def start_probe(agent_settings: Settings) -> Iterator[StartProbe]:
    """Start a probe in the directory of a role, as the account of that role."""
    with ExitStack() as stack:

        def start(role: str = "verifier", **options: object) -> Probe:
            directory = getattr(agent_settings.layout, role)
            account = find_account(agent_settings.owners[role])
            probe = stack.enter_context(Probe(directory, account, **options))  # type: ignore[arg-type]
            probe.missing()
            return probe

        yield start
