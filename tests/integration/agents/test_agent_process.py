"""An agent's life as seen by the side that has the rights."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cas.agent.account import find_account
from cas.agent.process import AgentProcess
from cas.agent.program import AgentProgram
from cas.errors import (
    AgentError,
    BlobNotFoundError,
    ConfinementError,
    InterruptedOperationError,
    LayoutError,
)
from cas.model.cancellation import Cancellation
from cas.model.settings import Settings
from tests.integration.agents.conftest import StartProbe
from tests.support.daemon import WAIT_SECONDS
from tests.support.probe import Probe
from tests.support.probe_agent import HANGS, Attempt, Outcome
from tests.support.process_states import runs
from tests.support.waiting import wait_for

HANG = "time.sleep(3600)"
UNTIL_CANCELLED = "while not context.cancel.is_set():\n    time.sleep(0.01)\ncontext.cancel.check()"


def in_thread(action: object, *arguments: object) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action(*arguments)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_error_of_an_agent_arrives_with_class_message_and_details(
    start_probe: StartProbe,
) -> None:
    """The caller cannot tell that another process met it."""
    probe = start_probe()

    with pytest.raises(BlobNotFoundError, match="no such thing") as caught:
        probe.attempt("def f():\n    raise BlobNotFoundError('no such thing', asked='x')\nf()")

    assert caught.value.details == {"asked": "x"}


def test_calls_of_several_threads_run_side_by_side(start_probe: StartProbe) -> None:
    """Each gets its own answer, and a short one does not wait for a long one."""
    probe, cancel = start_probe(), Cancellation()
    thread, failures = in_thread(lambda: probe.attempt(UNTIL_CANCELLED, cancel=cancel))

    assert [probe.attempt(f"{number} * 2") for number in range(20)] == [
        str(number * 2) for number in range(20)
    ]
    cancel.set()
    thread.join(WAIT_SECONDS)

    assert isinstance(failures[0], InterruptedOperationError)
    assert probe.attempt("1") == "1"


def test_progress_of_a_call_reaches_its_caller(start_probe: StartProbe) -> None:
    """The last step is told whatever the pace."""
    told: list[tuple[int, int | None]] = []

    start_probe().attempt(
        "for done in range(1, 101):\n    context.progress(done, 100)\nvalue = 1",
        progress=lambda done, total: told.append((done, total)),
    )

    assert told[-1] == (100, 100)
    assert len(told) < 50


def test_agent_that_is_killed_fails_its_calls_and_all_later_ones(start_probe: StartProbe) -> None:
    """With an error that says what happened."""
    probe = start_probe()
    thread, failures = in_thread(probe.attempt, HANG)
    wait_for(lambda: probe.attempt("threading.active_count()") >= "3")
    os.kill(probe.pid, signal.SIGKILL)
    thread.join(WAIT_SECONDS)

    assert isinstance(failures[0], AgentError)
    assert "ended by SIGKILL" in str(failures[0])
    with pytest.raises(AgentError, match="SIGKILL"):
        probe.attempt("1")


@pytest.mark.parametrize(
    "words",
    [
        "b'nonsense\\n'",
        'b\'{"type": "result"}\\n\'',
        "b'x' * 2_000_000 + b'\\n'",
        'b\'{"type":"failure","id":1\'',
        'b\'{"type":"result","id":1,"value":\' + b"[" * 100_000 + b"\\n"',
        'b\'{"type":"failure","id":1,"reference":"\\xff","kind":"","message":"","details":{}}\\n\'',
    ],
)
def test_agent_that_talks_nonsense_is_ended(words: str, start_probe: StartProbe) -> None:
    """Its messages are parsed strictly, and an endless one does not fill the memory."""
    probe = start_probe()
    # The descriptor of the messages is the one pipe that is none of the first three.
    code = f"""
for descriptor in range(3, 10):
    try:
        os.write(descriptor, {words})
        os.close(descriptor)
        break
    except OSError:
        pass
{HANG}
"""
    with pytest.raises(AgentError):
        probe.attempt(code)
    with pytest.raises(AgentError):
        probe.attempt("1")
    wait_for(lambda: not runs(probe.pid))


def test_agent_that_does_not_stop_when_told_is_given_up(
    start_probe: StartProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets away all the same."""
    monkeypatch.setattr("cas.agent.conversation._OBEY_SECONDS", 0.2)
    probe, cancel = start_probe(), Cancellation()
    cancel.set()

    with pytest.raises(InterruptedOperationError):
        probe.attempt(HANG, cancel=cancel)
    with pytest.raises(AgentError, match="does not stop"):
        probe.attempt("1")


def test_leaving_the_context_ends_an_agent_that_works(start_probe: StartProbe) -> None:
    """Nothing goes on behind the caller's back."""
    probe = start_probe()
    thread, failures = in_thread(probe.attempt, HANG)
    wait_for(lambda: probe.attempt("threading.active_count()") >= "3")

    probe.close()
    probe.close()
    thread.join(WAIT_SECONDS)

    assert isinstance(failures[0], AgentError)
    assert not Path(f"/proc/{probe.pid}").exists()


STARTER = """
import sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from cas.agent.account import Account
from tests.support.probe import Probe
with Probe(Path({directory!r}), {account!r}, {options}) as probe:
    print(probe.pid, flush=True)
    {then}
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("options", "then"),
    [
        ("", ""),
        ("hang=True", "probe.missing()"),
        ("", "probe.missing()"),
        ("", f"probe.attempt({HANG!r})"),
    ],
    ids=["before it is told anything", "while it loads", "when it is idle", "while it works"],
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_agent_whose_starter_ends_dies_with_it(
    number: signal.Signals, options: str, then: str, agent_settings: Settings
) -> None:
    """The kernel sees to it, so nothing can be in the way."""
    script = STARTER.format(
        root=os.fspath(Path(__file__).parents[3]),
        directory=os.fspath(agent_settings.layout.verifier),
        account=find_account(agent_settings.owners["verifier"]),
        options=options,
        then=then,
    )
    hangs = agent_settings.layout.verifier / HANGS
    hangs.unlink(missing_ok=True)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        if options:
            wait_for(hangs.exists)
        starter.send_signal(number)
    wait_for(lambda: not runs(pid))


def test_agent_that_cannot_work_with_its_options_says_why(start_probe: StartProbe) -> None:
    """The error is the agent's own; the process is gone."""
    with pytest.raises(BlobNotFoundError, match="library missing"):
        start_probe(fail="library missing")


def test_agent_that_cannot_be_started_is_an_error_of_ours(
    agent_settings: Settings, tmp_path: Path
) -> None:
    """Neither a missing directory nor a missing program is a traceback."""
    account = find_account(agent_settings.owners["verifier"])
    for command, directory in (
        (("/bin/true",), tmp_path / "absent"),
        (("/absent/program",), tmp_path),
        (("/bin/true",), tmp_path),
    ):
        program = AgentProgram("helper", command, directory, account)
        with (
            pytest.raises(AgentError, match="helper"),
            AgentProcess(program, b"{}") as process,
        ):
            process.missing()


def test_agent_configured_as_root_is_refused_where_confinement_is_required(
    agent_settings: Settings,
) -> None:
    """And only warned of where it is not."""
    root, directory = find_account("root"), agent_settings.layout.verifier

    with (
        pytest.raises(ConfinementError, match="the probe lacks own-user"),
        Probe(directory, root, require=True) as probe,
    ):
        probe.missing()
    with Probe(directory, root, require=False) as probe:
        assert list(probe.missing()) == ["own-user"]
        assert probe.call(Attempt("os.getuid()"), Outcome).value == "0"
        assert probe.attempt("os.listdir('/')") == "EACCES"


def test_account_that_does_not_exist_is_named() -> None:
    """With the command that makes it."""
    with pytest.raises(LayoutError, match="'cas-nobody-at-all'"):
        find_account("cas-nobody-at-all")


def test_words_of_an_agent_command_no_terminal(
    start_probe: StartProbe, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log may be read on root's terminal, and it may be in an attacker's hands."""
    caplog.set_level(logging.INFO, logger="cas.agent.process")

    start_probe().attempt("__import__('os').write(2, b'erase \\x1b[2J\\n')")

    wait_for(lambda: "words=erase \N{REPLACEMENT CHARACTER}[2J" in caplog.text)
