"""A containerd whose supervisor was killed, and those that only look like one."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from cas.containerd.root_directory import find_root_holder
from cas.daemon.orphan import ROOT, SUPERVISOR, end_orphan, supervised_environment
from cas.fsops.pinned_process import PinnedProcess
from cas.fsops.processes import ProcessIdentity, current, iter_processes
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS, connect, private_daemon
from tests.support.service import StayingProcess, held_back, service_configuration
from tests.support.waiting import wait_for


def _holder(settings: Settings) -> int | None:
    holder = find_root_holder(settings.layout.case)
    return holder.pid if holder else None


def _started_by(supervisor: int) -> list[int]:
    """Processes that it started and that run a program of their own by now."""
    mark = os.fsencode(f"{SUPERVISOR}=")
    found = []
    for process in iter_processes():
        with suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            marked = mark in Path(f"/proc/{process}/environ").read_bytes()
            if marked and f"\nPPid:\t{supervisor}\n" in status:
                found.append(process)
    return found


def _gone(settings: Settings) -> ProcessIdentity:
    """A process that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return ProcessIdentity(current().boot_id, child.pid, 1, current().pid_namespace)


@pytest.mark.slow
def test_orphan_of_a_killed_supervisor_is_ended_by_the_next_one(
    own_settings: Settings, tmp_path: Path
) -> None:
    """After a kill -9 nobody has to look for the containerd that is left."""
    config = service_configuration(tmp_path, own_settings)
    with StayingProcess(config, "containerd", "run") as first:
        connect(own_settings).close()
        orphan = _holder(own_settings)
        first.kill()
    assert orphan is not None
    assert Path(f"/proc/{orphan}").exists()
    with StayingProcess(config, "containerd", "run") as second:
        wait_for(lambda: _holder(own_settings) not in (orphan, None))
        connect(own_settings).close()
        assert "ending the containerd that a killed supervisor left" in second.log
    assert _holder(own_settings) is None


@pytest.mark.slow
def test_orphan_that_has_not_come_to_the_database_is_ended_before_the_next_starts(
    own_settings: Settings, tmp_path: Path
) -> None:
    """Else it would take the database sooner or later, and nobody reads its log."""
    settings = held_back(own_settings)
    (settings.persist / "hold").touch()
    config = service_configuration(tmp_path, settings)
    with StayingProcess(config, "containerd", "run") as first:
        wait_for(lambda: _started_by(first.pid))
        [orphan] = _started_by(first.pid)
        first.kill()
    with PinnedProcess(orphan) as process, StayingProcess(config, "containerd", "run"):
        assert process.has_ended(WAIT_SECONDS)
        (settings.persist / "hold").unlink()
        connect(settings).close()
        assert _holder(settings) not in (orphan, None)


@pytest.mark.slow
def test_containerd_of_a_living_supervisor_is_in_use(
    own_settings: Settings, tmp_path: Path
) -> None:
    """The second supervisor ends with an error, and the first one notices nothing."""
    config = service_configuration(tmp_path, own_settings)
    with StayingProcess(config, "containerd", "run"):
        connect(own_settings).close()
        holder = _holder(own_settings)
        with StayingProcess(config, "containerd", "run") as second:
            assert second.wait() == 4
            assert "[in-use]" in second.log
        assert _holder(own_settings) == holder


@pytest.mark.parametrize("mark", [None, "", "nonsense", "a:b:c:d", "1:2:3"])
def test_containerd_that_no_supervisor_marked_is_left_alone(
    own_settings: Settings, mark: str | None
) -> None:
    """Somebody started it, and nobody knows whether he still wants it."""
    environment = dict(os.environ) if mark is None else {**os.environ, SUPERVISOR: mark}
    with private_daemon(own_settings, environment=environment) as daemon:
        assert end_orphan(own_settings.layout.case) is False
        assert daemon.is_running()


def test_containerd_that_a_dead_supervisor_marked_is_ended_once(own_settings: Settings) -> None:
    """The second look finds nothing."""
    environment = supervised_environment(os.environ, _gone(own_settings), own_settings.layout.case)
    with private_daemon(own_settings, environment=environment) as daemon:
        assert end_orphan(own_settings.layout.case) is True
        assert not daemon.is_running()
        assert end_orphan(own_settings.layout.case) is False


def test_supervised_environment_keeps_all_but_the_managers_words() -> None:
    """containerd would tell the service manager that the service is ready."""
    given = {"PATH": "/bin", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    assert supervised_environment(given, ProcessIdentity("b", 1, 2, 3), Path("/case")) == {
        "PATH": "/bin",
        SUPERVISOR: "b:1:2:3",
        ROOT: "/case",
    }
