"""Upgrades cut off from power, and disks that are full, at each of their changes in turn.

The file systems are real ones whose shutdown loses what was not synced.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cas.errors import NoSpaceError, StorageError
from cas.fsops.effects import Effect, observed
from cas.fsops.replica import content_digest
from tests.support.killing import kill_at
from tests.support.loopfs import LoopFileSystem
from tests.support.old_device import OldApp, OldDevice, mounted_vault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_DISK_BYTES = 24 * 1024 * 1024
_STEPS = 300
_STRIDE = 5


def _digest(path: Path) -> str:
    return content_digest(path, advance=lambda _: None)


def _fill(device: OldDevice) -> dict[Path, tuple[Path, str]]:
    app, boxed = device.add(OldApp("a")), device.add(OldApp("boxed"))
    device.write_checkpoint()
    disk = device.disk(f"{app.old_name()}.raw", os.urandom(20_000))
    container = device.container(boxed.old_name())
    (container / "snapshotid.txt").write_text(boxed.old_name())
    volumes = {disk: device.new(app), container: device.new(boxed)}
    return {old: (new, _digest(old)) for old, new in volumes.items()}


@pytest.mark.parametrize("cut", ["old places", "vault", "both in one"])
def test_run_cut_off_from_power_at_any_step_is_completed_by_the_next(
    cut: str, loop_ext4: Callable[[int], LoopFileSystem]
) -> None:
    """Whichever side loses what was not synced: at the end every volume is whole."""
    near = loop_ext4(_DISK_BYTES)
    far = near if cut == "both in one" else loop_ext4(_DISK_BYTES)
    lost = near if cut == "old places" else far
    for step in range(0, _STEPS, _STRIDE):
        with _vault(near, far):
            device = OldDevice(near.path)
            volumes = _fill(device)
            os.sync()
            killed = kill_at(step, device.run, last=lost.power_cut)
        for disk in {near, far}:
            disk.remount()
        with _vault(near, far, again=True):
            device.run()
            for old, (new, digest) in volumes.items():
                assert _digest(new) == digest
                assert not old.exists()
        _empty(near, far)
        if not killed:
            assert step > 30
            return
    pytest.fail("the run did not end")


@contextmanager
def _vault(near: LoopFileSystem, far: LoopFileSystem, *, again: bool = False) -> Iterator[None]:
    if near is far:
        (near.path / "vault").mkdir(exist_ok=again)
        yield
        return
    with mounted_vault(near.path, far.path, again=again):
        yield


def _empty(*disks: LoopFileSystem) -> None:
    for disk in disks:
        for path in disk.path.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path)


def test_run_on_a_disk_that_is_full_at_any_step_loses_nothing(
    loop_ext4: Callable[[int], LoopFileSystem],
) -> None:
    """An error, a held volume or a failed item; with room again the next run does all."""
    near, far = loop_ext4(_DISK_BYTES), loop_ext4(_DISK_BYTES)
    for step in range(0, _STEPS, _STRIDE):
        with mounted_vault(near.path, far.path):
            device = OldDevice(near.path)
            volumes = _fill(device)
            seen = _run_with_full_disk(device, far, step)
            for old, (new, digest) in volumes.items():
                assert _digest(new if new.exists() else old) == digest
            far.make_room()
            device.run()
            for old, (new, digest) in volumes.items():
                assert _digest(new) == digest
                assert not old.exists()
            assert not list(device.settings.layout.held_volumes.glob("*"))
        _empty(near, far)
        if seen < step:
            return
    pytest.fail("the run did not end")


def _run_with_full_disk(device: OldDevice, disk: LoopFileSystem, step: int) -> int:
    """Fill the disk at a step of the run; gives how many steps there were."""
    count = 0

    def fill(kind: Effect, path: str) -> None:
        nonlocal count
        count += 1
        if count == step:
            disk.fill()

    # What does not even get so far as to convert one after the other ends the run with an error.
    with observed(fill), suppress(NoSpaceError, StorageError):
        device.run()
    return count
