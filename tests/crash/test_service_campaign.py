"""Random calls of several callers while containerd and the service are killed at random."""

import logging
import os
import random
import re
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.model.settings import Settings
from cas.store.check.findings import Problem
from cas.volumes.status import VolumeState
from tests.support.campaign import Caller, campaign_scenario
from tests.support.crash_scenario import assert_whole
from tests.support.daemon import mounts_below
from tests.support.service import Service
from tests.support.waiting import wait_for

_log = logging.getLogger(__name__)

_CALLERS = 4
_SHORTEST_PEACE_SECONDS = 0.2
_LONGEST_PEACE_SECONDS = 3.0
_FROZEN_SECONDS = 0.5
_MOST_RESIDENT_KIB = 120 * 1024
_FILE_WITHOUT_RECORD = Problem.FILE_WITHOUT_RECORD


@pytest.fixture
def campaign_seconds(pytestconfig: pytest.Config) -> float:
    """How long the callers go on; set by ``--campaign-seconds``."""
    return float(pytestconfig.getoption("--campaign-seconds"))


class _Trouble:
    """What happens to the service, chosen at random."""

    def __init__(self, service: Service, source: random.Random) -> None:
        self._service = service
        self._source = source
        self._kinds = (
            self._kill_containerd, self._kill_containerd, self._kill_service,
            self._stop_service, self._kill_both, self._freeze_containerd,
        )  # fmt: skip
        self.made: dict[str, int] = {}
        self.resident_kib = 0

    def make(self) -> None:
        """Wait for a moment, and let something happen."""
        threading.Event().wait(
            self._source.uniform(_SHORTEST_PEACE_SECONDS, _LONGEST_PEACE_SECONDS)
        )
        self.look_at_memory()
        kind = self._source.choice(self._kinds)
        name = kind.__name__.strip("_")
        self.made[name] = self.made.get(name, 0) + 1
        kind()

    def look_at_memory(self) -> None:
        """Remember the most that the service ever held."""
        status = Path(f"/proc/{self._service.process.pid}/status").read_text()
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert peak is not None, status
        self.resident_kib = max(self.resident_kib, int(peak[1]))

    def _kill_containerd(self) -> None:
        self._signal_containerd(signal.SIGKILL)

    def _kill_service(self) -> None:
        self._service.process.kill()
        self._service.start()

    def _stop_service(self) -> None:
        self._service.process.signal(signal.SIGTERM)
        assert self._service.process.wait(seconds=120) == 0, self._service.process.log
        self._service.start()

    def _kill_both(self) -> None:
        self._kill_containerd()
        self._kill_service()

    def _freeze_containerd(self) -> None:
        pid = self._signal_containerd(signal.SIGSTOP)
        threading.Event().wait(_FROZEN_SECONDS)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _signal_containerd(self, number: signal.Signals) -> int | None:
        """Send it to containerd, unless there is none right now; gives its process id."""
        pid = self._service.containerd_pid
        if pid is not None:
            with suppress(ProcessLookupError):  # its service ended it meanwhile
                os.kill(pid, number)
        return pid


@pytest.mark.slow
@pytest.mark.timeout(0)  # as long as it was asked to go on
def test_service_under_random_calls_and_kills_keeps_what_it_promised(
    own_settings: Settings, tmp_path: Path, crash_seed: int, campaign_seconds: float
) -> None:
    """Nothing acknowledged is lost, nobody sees a defect, and the store is clean at the end."""
    source = random.Random(crash_seed)
    scenarios = campaign_scenario(tmp_path, source, _CALLERS)
    stop = threading.Event()
    with Service(own_settings, allowed_directories=[str(tmp_path)]) as service:
        service.start("--stop-seconds", 1)
        callers = [
            Caller(number, own_settings.service_socket, scenario, f"{crash_seed}-{number}", stop)
            for number, scenario in enumerate(scenarios)
        ]
        trouble = _Trouble(service, source)
        try:
            for caller in callers:
                caller.start()
            end = time.monotonic() + campaign_seconds
            while time.monotonic() < end:
                trouble.make()
            # On a slow machine nobody may have got anywhere before the last trouble.
            wait_for(lambda: all(caller.done or caller.problems for caller in callers))
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        service.wait_for_health("SERVING")
        trouble.look_at_memory()
        service.process.signal(signal.SIGTERM)
        assert service.process.wait(seconds=120) == 0
    _log.warning("trouble=%s memory=%d KiB", trouble.made, trouble.resident_kib)
    for caller in callers:
        _log.warning("%s calls=%d done=%d", caller.name, caller.calls, caller.done)
        assert not caller.problems, "\n".join(caller.problems)
        assert caller.done, "not a single call went well"
    assert trouble.resident_kib < _MOST_RESIDENT_KIB
    _assert_clean_and_whole(own_settings, callers)


def _assert_clean_and_whole(settings: Settings, callers: list[Caller]) -> None:
    with Daemon(settings), Case.open(settings) as case:
        case.recover()
        findings = list(case.check.run(read_data=True))
        # A kill between link and commit leaves the file to the next ingest of it or collection.
        assert [found for found in findings if found.problem is not _FILE_WITHOUT_RECORD] == []
        assert all(repaired.done for repaired in case.repair.repair(findings))
        assert list(case.check.run()) == []
        case.recover()  # the first leaves what could be resumed
        _assert_active_volumes_alone_are_mounted(settings, case)
        for outcome in case.volumes.deactivate_all():
            assert outcome[1] is None, outcome
        for caller in callers:
            assert_whole(case, caller.scenario, caller.promises)
        assert list(case.backing.leases.iter_leases()) == []
        assert list(case.backing.content.iter_ingests()) == []
        assert mounts_below(settings.persist) == []


def _assert_active_volumes_alone_are_mounted(settings: Settings, case: Case) -> None:
    """Nothing is mounted that no volume knows of, before all are deactivated."""
    active = [
        status.rootfs
        for status in case.volumes.iter_volumes()
        if status.state is VolumeState.ACTIVE
    ]
    assert sorted(mounts_below(settings.persist)) == sorted(active)
