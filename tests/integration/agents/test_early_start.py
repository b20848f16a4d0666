"""Agents that load before anybody asks for them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cas.agent.early_start import EarlyStart
from cas.agent.program import AgentProgram
from cas.errors import AgentError
from cas.model.settings import Settings
from cas.pull.early_agents import early_agents
from cas.verifier.program import verifier_program
from cas.verifier.verifier import Verifier
from tests.support.pull_worker import agents_of
from tests.support.waiting import wait_for


@pytest.fixture
def program(agent_settings: Settings) -> AgentProgram:
    return verifier_program(agent_settings)


def test_agents_that_were_started_early_are_the_ones_that_are_asked(
    agent_settings: Settings,
) -> None:
    """No third process is started, and it is confined like any other."""
    with early_agents(agent_settings) as early:
        wait_for(lambda: len(agents_of(os.getpid())) == 2)
        before = agents_of(os.getpid())
        with Verifier(agent_settings, launch=early.launch) as verifier:
            assert verifier.missing() == {}
            assert agents_of(os.getpid()) == before
    assert agents_of(os.getpid()) == {}


def test_early_agent_is_given_once(program: AgentProgram) -> None:
    """Whoever asks next gets a process of its own, and so does who asks for another program."""
    with EarlyStart() as early:
        early.start(program)
        early.start(program)
        others = [program, program, replace(program, require_confinement=True)]
        taken = [early.launch(each) for each in others]
        for process in taken:
            process.communicate()  # the end of its pipe ends it

    assert len({process.pid for process in taken}) == 3
    assert [process.returncode for process in taken] == [0, 0, 0]


def test_early_agent_that_nobody_takes_is_ended(program: AgentProgram) -> None:
    """With the block."""
    with EarlyStart() as early:
        early.start(program)
        wait_for(lambda: "verifier" in agents_of(os.getpid()))

    assert agents_of(os.getpid()) == {}


def test_agent_that_cannot_be_started_early_is_missed_by_who_asks_for_it(
    agent_settings: Settings, program: AgentProgram, tmp_path: Path
) -> None:
    """The error is the same as without."""
    broken = replace(program, directory=tmp_path / "absent")
    with EarlyStart() as early:
        early.start(broken)
        with pytest.raises(AgentError, match="absent"):
            early.launch(broken)
    owners = {**agent_settings.owners, "downloader": "cas-nobody-at-all"}
    with early_agents(replace(agent_settings, owners=owners)):
        assert agents_of(os.getpid()) == {}
