"""Signs of life of long runs, how they are stopped, and the memory that they take."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cas.app import open_upgrade
from cas.errors import InterruptedOperationError
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from tests.support.old_device import OldApp, OldDevice, mounted_tmpfs
from tests.support.old_places import contents, holds

_MANY = 100
_MOST_EFFECTS_BETWEEN_SIGNS = 80
"""Far more than the renaming of a thing takes with its journal, and far fewer than a tree has."""
_MIB = 1024 * 1024


class _Signs:
    """Counts changes between two signs of life; asks for a stop at one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.cancel = Cancellation()
        self.count = 0
        self.longest = 0
        self.actions: set[str] = set()
        self._since = 0
        self._last = last

    def heed(self, kind: Effect, path: str) -> None:
        self._since += 1
        self.longest = max(self.longest, self._since)

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.actions.add(action)
        self._sign()

    def advance(self, action: str, item: str, amount: int) -> None:
        self._sign()

    def finish(self, action: str, item: str) -> None:
        self._sign()

    def _sign(self) -> None:
        self._since = 0
        if self.count == self._last:
            self.cancel.set()
        self.count += 1

    def run(self, device: OldDevice) -> None:
        with observed(self.heed):
            list(open_upgrade(device.settings).run(cancel=self.cancel, progress=self))


def _fill(device: OldDevice) -> dict[Path, Path]:
    """Many disks, and trees of many small things: what takes long without a byte that is read."""
    moves = {}
    for number in range(_MANY):
        app = device.add(OldApp(f"app {number}"))
        moves[device.disk(f"{app.old_name()}.raw", b"x")] = device.new(app)
    boxed = device.add(OldApp("boxed"))
    container = device.container(boxed.old_name())
    pending = device.persist / "downloads/appImg.obj/pending/part"
    for directory in (container, pending):
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(_MANY):
            (directory / f"file {number}").touch()
            (directory / f"link {number}").symlink_to("nowhere")
            (directory / f"directory {number}").mkdir()
    device.write_checkpoint()
    return {**moves, container: device.new(boxed)}


@pytest.mark.slow
def test_run_gives_signs_of_life_whatever_it_does(device: OldDevice) -> None:
    """Renames, copies of empty files, removals: none goes on for long without telling."""
    _fill(device)
    signs = _Signs()
    signs.run(device)
    assert signs.longest <= _MOST_EFFECTS_BETWEEN_SIGNS
    assert signs.actions >= {"plan", "convert", "remove"}


@pytest.mark.slow
def test_run_stopped_at_any_sign_goes_on_later(device: OldDevice) -> None:
    """While it plans, renames, copies, removes: what is done stays done, and nothing is lost."""
    moves = _fill(device)
    before = {old: contents(old) for old in moves}
    for last in (0, 5, _MANY + 20, _MANY + 30, 2 * _MANY, 3 * _MANY, 6 * _MANY):
        signs = _Signs(last)
        with suppress(InterruptedOperationError):
            signs.run(device)
        assert not signs.cancel.is_set() or signs.count < last + 20, "it goes on"
        for old, new in moves.items():
            assert holds(new, before[old]) or holds(old, before[old])
    device.run()
    for old, new in moves.items():
        assert holds(new, before[old])
        assert not old.exists()
    assert not (device.persist / "downloads").exists()


_PROGRAM = """
import sys
from pathlib import Path
from cas.app import open_upgrade
from tests.support.old_device import clear_settings
upgrade = open_upgrade(clear_settings(Path(sys.argv[1])))
print(sum(planned.action == "rename" for planned in upgrade.plan()))
print(sum(outcome.result == "moved" for outcome in upgrade.run()))
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) * 1024)
"""


@pytest.mark.slow
def test_run_of_ten_thousand_volumes_takes_bounded_memory(tmp_path: Path) -> None:
    """Some kilobytes for each volume of the configuration; and matching is a look-up, no search."""
    with mounted_tmpfs(tmp_path):
        device = OldDevice(tmp_path)
        for number in range(10_000):
            app = device.add(OldApp(f"app {number}"))
            device.disk(f"{app.old_name()}.raw", b"")
        device.write_checkpoint()
        (tmp_path / "vault").mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, tmp_path],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            check=True,
            text=True,
        )
        planned, moved, peak = (int(line) for line in done.stdout.splitlines())
        assert (planned, moved) == (10_000, 10_000)
        assert peak < 128 * _MIB
