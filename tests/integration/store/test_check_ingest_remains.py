"""What is left of a write when containerd is killed while it removes the write's directory."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from cas.store.check.findings import Finding, Problem
from tests.support.stores import blobs_directory, utc_now


@pytest.fixture
def remains(settings: Settings) -> Path:
    """The directory of a write that has lost its name but not its data."""
    with Case.open(settings) as case:
        path = blobs_directory(case.backing).parents[1] / "ingest" / ("0" * 64)
    path.mkdir(parents=True)
    (path / "data").write_bytes(b"half")
    return path


def _grow_old(path: Path) -> None:
    then = (utc_now() - timedelta(hours=2)).timestamp()
    os.utime(path, (then, then))


def _findings(case: Case, path: Path) -> list[Finding]:
    return [each for each in case.check.run() if each.object == str(path)]


def test_remains_of_a_write_when_old_are_reported_and_removed(
    settings: Settings, remains: Path
) -> None:
    """No list of containerd shows them, and no collection takes them."""
    _grow_old(remains)
    with Case.open(settings) as case:
        case.backing.leases.collect_garbage()
        found = _findings(case, remains)
        assert [each.problem for each in found] == [Problem.INGEST_REMAINS]
        assert [each.done for each in case.repair.repair(found)] == [True]
        assert not remains.exists()
        assert _findings(case, remains) == []


def test_remains_of_a_write_when_young_are_left_alone(settings: Settings, remains: Path) -> None:
    """containerd may be about to name the write."""
    with Case.open(settings) as case:
        assert _findings(case, remains) == []
    _grow_old(remains)
    (remains / "ref").write_text("test")
    _grow_old(remains)
    with Case.open(settings) as case:
        assert _findings(case, remains) == []
    (remains / "ref").unlink()
    (remains / "data").unlink()
    remains.rmdir()


def test_write_that_got_its_name_after_the_check_is_left_alone(
    settings: Settings, remains: Path
) -> None:
    """Repair looks again."""
    _grow_old(remains)
    with Case.open(settings) as case:
        found = _findings(case, remains)
        (remains / "ref").write_text("test")
        list(case.repair.repair(found))
    assert (remains / "data").exists()
    for path in (remains / "ref", remains / "data"):
        path.unlink()
    remains.rmdir()
