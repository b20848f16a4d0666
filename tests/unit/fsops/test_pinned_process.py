"""Processes that are ended, and no others."""

import os
import signal
import subprocess
import sys

from cas.fsops.pinned_process import PinnedProcess

_DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)\n"
    "time.sleep(60)"
)


def test_end_of_a_process_that_obeys_asks_only() -> None:
    """It is asked before it is killed."""
    with subprocess.Popen(["sleep", "60"]) as child, PinnedProcess(child.pid) as process:
        assert not process.has_ended()
        process.end(grace_seconds=30)
        assert process.has_ended()
        assert child.wait() == -signal.SIGTERM
        process.end(grace_seconds=30)


def test_end_of_a_process_that_does_not_obey_kills_it() -> None:
    """The grace ends."""
    with subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with PinnedProcess(child.pid) as process:
            process.end(grace_seconds=0.05)
            assert process.has_ended()
        assert child.wait() == -signal.SIGKILL


def test_process_that_is_gone_has_ended_and_has_no_environment() -> None:
    """Its number may be somebody else's soon; nobody is asked or ended."""
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with PinnedProcess(child.pid) as process:
        assert process.has_ended()
        assert process.environment() == {}
        process.end(grace_seconds=0)


def test_environment_is_what_the_process_was_started_with() -> None:
    """Values may hold anything but a zero byte; when it has ended, they are another's or gone."""
    given = {"PATH": os.environ["PATH"], "A": "b=c d\n", "EMPTY": ""}
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(["cat"], env=given, stdin=pipe, stdout=pipe) as child,
        PinnedProcess(child.pid) as cat,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()  # from here on it is cat, and no half of it
        assert cat.environment() == given
        cat.end(grace_seconds=30)
        assert cat.environment() == {}
