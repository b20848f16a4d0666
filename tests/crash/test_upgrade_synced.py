"""What upgrades sync, and when: judged against a power cut that leaves nothing that was not.

File systems write more than they are asked to, and a test on one passes although a sync is missing.
So each place in the code that syncs is taken out in turn as well, and that has to be noticed.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cas.fsops.effects import Effect, observed
from cas.volumes.holds import ALL_VOLUMES
from tests.support.old_device import OldDevice, mounted_tmpfs
from tests.support.old_places import fill_old_places
from tests.support.sync_record import UNSYNCED, SyncRecord, View

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_NOT_MISSED = {
    # The name that it gives goes next, and with it the directory is synced.
    "durable.rename_aside",
}
"""Places whose syncs are for file systems that do not keep the order of names."""

Moves = dict[str, str]
"""Old and new places, below the persist directory."""


@contextmanager
def _device(path: Path, *, apart: bool) -> Iterator[OldDevice]:
    with ExitStack() as stack:
        stack.enter_context(mounted_tmpfs(path))
        (path / "vault").mkdir()
        if apart:
            stack.enter_context(mounted_tmpfs(path / "vault"))
        yield OldDevice(path)


@pytest.fixture(params=["together", "apart"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OldDevice]:
    """Vault and old places on one file system, or on two."""
    with _device(tmp_path, apart=request.param == "apart") as made:
        yield made


def _fill(device: OldDevice) -> Moves:
    # As after an earlier run: what is made anew is synced for other reasons, too.
    device.settings.layout.held_volumes.mkdir(parents=True)
    moves = fill_old_places(device)
    return {_below(device, old): _below(device, new) for old, new in moves.items()}


def _below(device: OldDevice, path: Path) -> str:
    return f"/{path.relative_to(device.persist)}"


class _Judge:
    """Judges what a power cut would leave, before each change that a run makes."""

    def __init__(self, device: OldDevice, moves: Moves, record: SyncRecord) -> None:
        layout = device.settings.layout
        self._moves = moves
        self._record = record
        self._journal = _below(device, layout.upgrade_journal)
        self._hold = _below(device, layout.held_volumes / ALL_VOLUMES)
        before = record.lost()
        self._before = {old: _contents(before, old) for old in moves}

    def __call__(self, kind: Effect, path: str) -> None:
        for view in (self._record.lost(), self._record.named()):
            journaled = self._journaled()
            for old, new in self._moves.items():
                if self._is_whole(view, new, old):
                    assert (old, new) in journaled, (
                        f"nothing is noted of {new} before {kind} {path}"
                    )
                    continue
                assert self._is_whole(view, old, old), f"{old} is lost before {kind} {path}"
                held = view.get(self._hold, UNSYNCED) != UNSYNCED
                assert held or not journaled, f"nothing is held before {kind} {path}"

    def _is_whole(self, view: View, place: str, old: str) -> bool:
        return _contents(view, place).items() >= self._before[old].items()

    def _journaled(self) -> set[tuple[str, str]]:
        """Give source and target of the lines that no power cut can take."""
        value = self._record.lost().get(self._journal, UNSYNCED)
        content = value[-1] if value != UNSYNCED else b""
        assert isinstance(content, bytes)
        entries = [json.loads(line) for line in content.splitlines()]
        return {
            (f"/{each['source']}", f"/{each['target']}") for each in entries if "target" in each
        }


def _contents(view: View, place: str) -> View:
    """Give time and content of what is in a place; owner and mode may become others there."""
    return {
        path[len(place) :]: value[3:]
        for path, value in view.items()
        if path == place or path.startswith(f"{place}/")
    }


def _run(device: OldDevice, moves: Moves, ignored: str = "") -> SyncRecord:
    with SyncRecord(device.persist, ignored) as record, observed(_Judge(device, moves, record)):
        device.run()
        locks = _below(device, device.settings.layout.run)
        lost, named = (
            {path: value for path, value in view.items() if not path.startswith(locks)}
            for view in (record.lost(), record.named())
        )
        assert lost == named, "what was acknowledged is not there after a cut"
        assert UNSYNCED not in lost.values()
    return record


def test_run_is_never_without_a_synced_copy_of_anything(device: OldDevice) -> None:
    """Old or new, each thing survives a cut; the journal knows of it; what is done is synced."""
    _run(device, _fill(device))


def test_each_sync_of_a_run_is_missed(tmp_path: Path) -> None:
    """Whichever place in the code stops to sync, that is noticed: the test above can fail."""
    sites: set[str] = set()
    needed: set[str] = set()
    for apart in (True, False):
        with _device(tmp_path, apart=apart) as device:
            found = set(_run(device, _fill(device)).sites)
        sites |= found
        needed |= {site for site in found - needed if _is_missed(tmp_path, site, apart=apart)}
    assert {site.partition(":")[0] for site in sites - needed} == _NOT_MISSED
    assert len(needed) > 12


def _is_missed(tmp_path: Path, site: str, *, apart: bool) -> bool:
    """Whether a run without the syncs of one place in the code is found out."""
    with _device(tmp_path, apart=apart) as device:
        moves = _fill(device)
        try:
            _run(device, moves, ignored=site)
        except AssertionError:
            return True
    return False
