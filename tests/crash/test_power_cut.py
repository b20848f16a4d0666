"""Power cuts at random moments: what was acknowledged is there and whole, the rest is redone.

The store lies on an ext4 of its own, whose shutdown loses what was not synced as a power cut does;
containerd, this program and all their caches go with it.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.app import Case
from tests.support.crash_scenario import Promises, Scenario, assert_whole, build_scenario
from tests.support.crash_store import Machine, Worker, recover
from tests.support.loopfs import LoopFileSystem

_DISK_BYTES = 384 * 1024 * 1024
_LONGEST_PAUSE_SECONDS = 0.03
_STEPS = 200
"""About as many does the work take; with more it ends, and the cut comes right after it."""
_TRIES = 5
"""Of losing what is not synced: somebody else's sync of all file systems may have saved it."""
_FIRST_DAEMON_THAT_SYNCS_UNASKED = (1, 7, 26)

MakeDisk = Callable[[int], LoopFileSystem]


def _recover_and_judge(machine: Machine, scenario: Scenario, promises: Promises) -> None:
    with Case.open(machine.settings) as case:
        assert recover(case) == []
        assert_whole(case, scenario, promises)
        assert recover(case) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_work_after_power_cuts_is_whole_or_redone(
    number: int, crash_seed: int, loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """Invariant 2: what was acknowledged survives cuts at random steps; a repeat does the rest."""
    source = random.Random(f"{crash_seed}-{number}")
    scenario = build_scenario(tmp_path, source)
    promises = Promises()
    jobs = scenario.jobs
    with Machine(loop_ext4(_DISK_BYTES), containerd_binary) as machine:
        for _ in range(2):
            # More often early than late: a repeat has less to do.
            steps = 1 + int(_STEPS * source.random() ** 2)
            with Worker(machine.settings, jobs, promises) as worker:
                worker.run(steps, source.uniform(0, _LONGEST_PAUSE_SECONDS))
                machine.lose_power(worker)
            _recover_and_judge(machine, scenario, promises)
        with Worker(machine.settings, jobs, promises) as worker:
            worker.run()
            machine.lose_power(worker)
        assert promises == scenario.outcome
        _recover_and_judge(machine, scenario, promises)


@pytest.mark.slow
def test_recovery_after_power_cuts_of_its_own_is_completed(
    crash_seed: int, loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """A repair that a cut ends is done by the next one."""
    source = random.Random(f"{crash_seed}-recovery")
    scenario = build_scenario(tmp_path, source)
    promises = Promises()
    with Machine(loop_ext4(_DISK_BYTES), containerd_binary) as machine:
        for _ in range(2):
            with Worker(machine.settings, scenario.jobs, promises) as worker:
                worker.run(source.randrange(20, _STEPS))
                worker.kill()
            with Worker(machine.settings, [["recover"]], promises) as worker:
                worker.run(source.randrange(1, 15), source.uniform(0, _LONGEST_PAUSE_SECONDS))
                machine.lose_power(worker)
            _recover_and_judge(machine, scenario, promises)


@pytest.mark.slow
def test_layers_that_were_not_synced_after_a_power_cut_are_noticed(
    crash_seed: int, loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """Without the sync that the store adds, volumes turn out empty: the tests here can fail."""
    scenario = build_scenario(tmp_path, random.Random(crash_seed))
    jobs = [job for job in scenario.jobs if job[0] in {"import", "prepare"}]
    for _ in range(_TRIES):
        promises = Promises()
        with Machine(loop_ext4(_DISK_BYTES), containerd_binary) as machine:
            with Worker(machine.settings, jobs, promises, "--without-layer-sync") as worker:
                worker.run()
                machine.lose_power(worker)
            with Case.open(machine.settings) as case:
                assert recover(case) == [], "the loss cannot be seen from outside of the files"
                if case.containerd.facts.version >= _FIRST_DAEMON_THAT_SYNCS_UNASKED:
                    assert_whole(case, scenario, promises)
                    return
                if _lacks_files(case, scenario, promises):
                    return
    pytest.fail("nothing was lost")


def _lacks_files(case: Case, scenario: Scenario, promises: Promises) -> bool:
    try:
        assert_whole(case, scenario, promises)
    except AssertionError as error:
        if "differs" not in str(error):
            raise
        return True
    return False
