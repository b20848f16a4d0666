"""Upgrades cut off from power, and disks that are full, at their changes.

The file systems are real ones whose shutdown loses what was not synced. With ``--every-step`` at
each change in turn, otherwise at some of them.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from cas.errors import NoSpaceError, StorageError
from cas.fsops.durable import sync_file_system
from cas.fsops.effects import Effect, observed
from tests.support.killing import kill_at
from tests.support.loopfs import LoopFileSystem
from tests.support.old_device import OldDevice, mounted_vault
from tests.support.old_places import Moves, contents, fill_old_places, holds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # for every step

_DISK_BYTES = 24 * 1024 * 1024
_SAMPLE = 4

MakeDisk = Callable[[int], LoopFileSystem]
Steps = Callable[[str, int], list[int]]


@pytest.fixture
def chosen(pytestconfig: pytest.Config, crash_seed: int) -> Steps:
    """Chooses among so many steps."""

    def choose(what: str, count: int) -> list[int]:
        if pytestconfig.getoption("--every-step"):
            print(f"{what}: {count} steps")
            return list(range(count))
        return random.Random(f"{crash_seed}-{what}").sample(range(count), _SAMPLE)

    return choose


@contextmanager
def _filled(near: LoopFileSystem, far: LoopFileSystem) -> Iterator[tuple[OldDevice, Moves]]:
    for disk in {near, far}:
        for path in disk.path.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path)
    with _vault(near, far):
        device = OldDevice(near.path)
        yield device, fill_old_places(device)


@contextmanager
def _vault(near: LoopFileSystem, far: LoopFileSystem, *, again: bool = False) -> Iterator[None]:
    if near is far:
        (near.path / "vault").mkdir(exist_ok=again)
        yield
        return
    with mounted_vault(near.path, far.path, again=again):
        yield


def _run_to_its_end(device: OldDevice, at: Callable[[int], object] = lambda step: None) -> int:
    """Run, and tell of each change before it happens; gives how many there were."""
    count = 0

    def heed(kind: Effect, path: str) -> None:
        nonlocal count
        at(count)
        count += 1

    # What does not even get so far as to convert one after the other ends the run with an error.
    with observed(heed), suppress(NoSpaceError, StorageError):
        device.run()
    return count


@pytest.mark.parametrize("cut", ["old places", "vault", "both in one"])
def test_run_cut_off_from_power_is_completed_by_the_next(
    cut: str, loop_ext4: MakeDisk, chosen: Steps
) -> None:
    """Whichever side loses what was not synced: at the end everything is whole."""
    near = loop_ext4(_DISK_BYTES)
    far = near if cut == "both in one" else loop_ext4(_DISK_BYTES)
    lost = near if cut == "old places" else far
    with _filled(near, far) as (device, _):
        count = _run_to_its_end(device)
    for step in chosen(cut, count):
        with _filled(near, far) as (device, moves):
            before = {old: contents(old) for old in moves}
            for disk in {near, far}:
                sync_file_system(disk.path)
            assert kill_at(step, device.run, last=lost.power_cut), step
        for disk in {near, far}:
            disk.remount()
        with _vault(near, far, again=True):
            device.run()
            for old, new in moves.items():
                assert holds(new, before[old]), step
                assert not old.exists(), step


def test_run_on_a_disk_that_is_full_loses_nothing(loop_ext4: MakeDisk, chosen: Steps) -> None:
    """An error, a held volume or a failed item; with room again the next run does all."""
    near, far = loop_ext4(_DISK_BYTES), loop_ext4(_DISK_BYTES)
    with _filled(near, far) as (device, _):
        count = _run_to_its_end(device)
    for step in chosen("full", count):
        with _filled(near, far) as (device, moves):
            before = {old: contents(old) for old in moves}
            _run_to_its_end(device, partial(_fill_at, far, step))
            for old, new in moves.items():
                assert holds(old, before[old]) or holds(new, before[old]), step
            far.make_room()
            device.run()
            for old, new in moves.items():
                assert holds(new, before[old]), step
                assert not old.exists(), step
            assert not list(device.settings.layout.held_volumes.glob("*"))


def _fill_at(disk: LoopFileSystem, chosen: int, step: int) -> None:
    if step == chosen:
        disk.fill()
