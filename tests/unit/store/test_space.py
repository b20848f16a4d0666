"""The ledger of space, on a file system that nobody else writes to, without containerd."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cas.errors import NoSpaceError
from cas.fsops.trees import free_bytes
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.store.space import Space
from tests.support.old_device import mounted_tmpfs

ROOT = Path(__file__).parents[3]
SLACK = 1024 * 1024
"""More than what the ledger itself takes."""


@dataclass
class Stub:
    """The part of a store that the ledger uses."""

    layout: Layout
    limits: Limits = field(default_factory=lambda: replace(Limits(), min_free_bytes=0))
    blobs_directory: Path | None = None


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path) -> Iterator[None]:
    with mounted_tmpfs(tmp_path):
        yield


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    layout = Layout(tmp_path)
    layout.case.mkdir(parents=True)
    return Stub(layout)


@pytest.fixture
def space(stub: Stub) -> Space:
    return Space(stub)


def files(stub: Stub) -> list[Path]:
    return list(stub.layout.reservations.iterdir()) if stub.layout.reservations.exists() else []


def test_room_that_is_there_is_promised_and_given_back(space: Space, stub: Stub) -> None:
    """The promise lives as long as its context, also when that ends by an error."""
    with space.reserve(1000, "test"):
        [file] = files(stub)
        assert int(file.read_text()) == 1000
    assert files(stub) == []
    with pytest.raises(KeyboardInterrupt), space.reserve(1000, "test"):
        raise KeyboardInterrupt
    assert files(stub) == []


def test_room_that_is_not_there_is_refused_with_the_missing_bytes(
    space: Space, tmp_path: Path
) -> None:
    """The refusal names the work, what it needs, what is missing, and what to do."""
    needed = free_bytes(tmp_path) + 10 * SLACK
    with pytest.raises(NoSpaceError, match="blob x") as caught, space.reserve(needed, "blob x"):
        pass
    assert caught.value.details["needed"] == needed
    assert abs(int(str(caught.value.details["missing"])) - 10 * SLACK) < SLACK
    assert "cas prune" in str(caught.value)


def test_room_promised_is_not_promised_twice(space: Space, tmp_path: Path) -> None:
    """Two pieces of work that fit alone do not fit together."""
    most = free_bytes(tmp_path) * 2 // 3
    with space.reserve(most, "first"), pytest.raises(NoSpaceError), space.reserve(most, "second"):
        pass
    with space.reserve(most, "third"):
        pass


def test_room_consumed_is_free_for_others(space: Space, tmp_path: Path) -> None:
    """What is written shows in the file system itself and is not counted twice."""
    most = free_bytes(tmp_path) * 2 // 3
    with space.reserve(most, "first") as reservation:
        reservation.consume(most - 10)
        with space.reserve(most, "second"):
            pass
        reservation.consume(100)
        assert space.available() > free_bytes(tmp_path) - SLACK


def test_room_that_work_must_leave_is_not_promised(stub: Stub, tmp_path: Path) -> None:
    """The limit on free space counts as used."""
    free = free_bytes(tmp_path)
    stub.limits = replace(stub.limits, min_free_bytes=free // 2)
    space = Space(stub)
    assert abs(space.available() - free // 2) < SLACK
    with pytest.raises(NoSpaceError), space.reserve(free * 2 // 3, "test"):
        pass


def test_room_is_never_less_than_none(stub: Stub, tmp_path: Path) -> None:
    """A file system that is fuller than it may be has nothing available."""
    stub.limits = replace(stub.limits, min_free_bytes=free_bytes(tmp_path) * 2)
    assert Space(stub).available() == 0


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.unit.store.test_space import Stub
from cas.model.layout import Layout
from cas.store.space import Space
with Space(Stub(Layout(Path(sys.argv[1])))).reserve(12345, "test"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("look", ["sweep", "available", "reserve"])
def test_promise_of_a_killed_process_is_dropped_by_the_next_look(
    space: Space, stub: Stub, look: str
) -> None:
    """The dead need no room; whoever looks next removes their promises."""
    subprocess.run([sys.executable, "-c", PROGRAM, str(stub.layout.persist)], cwd=ROOT, check=False)
    [file] = files(stub)
    assert int(file.read_text()) == 12345
    if look == "sweep":
        space.sweep()
    elif look == "available":
        space.available()
    else:
        with space.reserve(1, "test"):
            assert file not in files(stub)
    assert files(stub) == []


def test_promise_of_the_living_stays(space: Space, stub: Stub) -> None:
    """A look does not disturb work under way."""
    with space.reserve(5, "test"):
        space.sweep()
        assert len(files(stub)) == 1
