"""Telling the dead from the living, and from those that cannot be seen."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cas.fsops.processes import ProcessIdentity, boot_time, current, is_dead, process_name

ROOT = Path(__file__).parents[3]
# Mounts of tests that run beside this one would stay in use by the namespace.
_NEW_PROC = (
    *("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c"),
    *('umount --all --types overlay 2>/dev/null; exec "$@"', "sh"),
)
TELL = (
    "from cas.fsops.processes import current; i = current()\n"
    "print(i.boot_id, i.pid, i.start_time, i.pid_namespace, flush=True); input()"
)


def told(process: "subprocess.Popen[str]") -> ProcessIdentity:
    """Read what a process says of itself."""
    assert process.stdout is not None
    boot_id, pid, start_time, namespace = process.stdout.readline().split()
    return ProcessIdentity(boot_id, int(pid), int(start_time), int(namespace))


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    """Start a process that says who it is and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process
        process.kill()


def test_current_is_this_process_and_alive() -> None:
    """An identity does not change within a process."""
    assert current() == current()
    assert current().pid == os.getpid()
    assert not is_dead(current())


def test_other_process_is_alive_until_it_is_reaped(child: "subprocess.Popen[str]") -> None:
    """A zombie holds nothing any more, so it is as dead as one that is gone."""
    identity = told(child)
    assert identity.pid == child.pid
    assert not is_dead(identity)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(identity)
    child.wait()
    assert is_dead(identity)


def test_reused_process_id_is_another_process() -> None:
    """The start time tells."""
    assert is_dead(replace(current(), start_time=current().start_time - 1))


def test_process_of_an_earlier_boot_is_dead() -> None:
    """Whatever its number is taken by now."""
    assert is_dead(replace(current(), boot_id="00000000-0000-0000-0000-000000000000"))


def test_process_whose_main_thread_ended_is_alive() -> None:
    """Its leader looks like a zombie while its other threads work."""
    code = (
        "import threading, ctypes\n"
        "from cas.fsops.processes import current\n"
        "i = current(); print(i.boot_id, i.pid, i.start_time, i.pid_namespace, flush=True)\n"
        "threading.Thread(target=input).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        identity = told(process)
        stat = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 30
        while ") Z " not in stat.read_text():
            assert time.monotonic() < deadline, "the main thread did not end"
        assert not is_dead(identity)
        process.kill()
        process.wait()
        assert is_dead(identity)


def test_process_of_another_pid_namespace_is_alive_until_its_namespace_is_gone() -> None:
    """Numbers of a container mean nothing outside, so only its end is certain."""
    with subprocess.Popen(
        [*_NEW_PROC, sys.executable, "-c", TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        identity = told(process)
        assert identity.pid != process.pid
        assert identity.pid_namespace != current().pid_namespace
        assert not is_dead(identity)
        assert not is_dead(replace(identity, pid=999_999))
        process.communicate("\n")
    assert is_dead(identity)


def test_process_outside_cannot_be_judged_from_within_a_pid_namespace() -> None:
    """Who does not see everybody never says dead."""
    code = (
        "from cas.fsops.processes import ProcessIdentity, is_dead\n"
        f"print(is_dead({current()!r}), is_dead({replace(current(), pid=999_999)!r}))"
    )
    answer = subprocess.run(
        [*_NEW_PROC, sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert answer.stdout.split() == ["False", "False"]


def test_process_cannot_be_judged_by_a_proc_of_another_namespace() -> None:
    """There /proc/1 is somebody else, and nothing it shows is about our processes."""
    code = (
        "from dataclasses import replace; from cas.fsops.processes import current, is_dead\n"
        "print(is_dead(current()), is_dead(replace(current(), pid=999_999)))"
    )
    answer = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert answer.stdout.split() == ["False", "False"]


def test_process_with_an_odd_name_is_identified() -> None:
    """A name may look like the fields that follow it."""
    name = ") R 1 2"
    code = f"open('/proc/self/comm', 'w').write({name!r})\n{TELL}"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        identity = told(process)
        assert process_name(process.pid) == name
        assert not is_dead(identity)
        process.communicate("\n")
    assert is_dead(identity)
    assert process_name(process.pid) == ""


def test_boot_time_is_before_this_process_and_agrees_with_uptime() -> None:
    """An aware instant in UTC."""
    before = datetime.now(tz=UTC)
    uptime = timedelta(seconds=float(Path("/proc/uptime").read_text().split()[0]))
    after = datetime.now(tz=UTC)
    slack = timedelta(seconds=3)
    assert before - uptime - slack < boot_time() < after - uptime + slack
    assert boot_time().tzinfo is UTC
