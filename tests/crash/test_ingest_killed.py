"""An ingest that is killed at any step leaves nothing wrong, and is done by running it again."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import CHUNK_BYTES
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import FileSource
from cas.store.leasing import Leasing
from cas.store.sentinel import Sentinel
from tests.support import ingest_worker
from tests.support.forked import exit_status
from tests.support.stores import (
    Collections,
    assert_nothing_left,
    backing_for,
    blob_file,
    is_stored,
    own_blobs,
    random_bytes,
)

LARGE = CHUNK_BYTES + 4321
MOST_STEPS = 60
"""More than an ingest has; a run that is not killed ends the test before."""


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    backing = backing_for(containerd, settings)
    Sentinel(backing).ensure()
    return backing


@pytest.fixture
def place(backing: Backing) -> Iterator[Path]:
    directory = backing.layout.persist / "place"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def run_worker(
    settings: Settings,
    way: Way,
    digest: Digest | None,
    how: str,
    steps: int,
    file: Path,
) -> int:
    arguments = [settings.socket, settings.persist, settings.namespace, way, digest or "-", how]
    return exit_status(ingest_worker.main, [*map(str, [*arguments, steps, file])])


def repeat(backing: Backing, way: Way, digest: Digest | None, how: str, file: Path) -> None:
    with Leasing(backing).hold("test") as lease:
        Ingest(backing).ingest(
            FileSource(file),
            lease,
            expected=digest,
            labels={GC_ROOT: "test"},
            move=how == "move",
            way=way,
        )


def recover(backing: Backing) -> None:
    """What a start after a crash does; twice, since the first leaves what could be resumed."""
    for _ in range(2):
        Leasing(backing).reap()
        Ingest(backing).sweep()


def sweep_orphans(backing: Backing) -> None:
    """A linked file that was not registered goes with a collection that looks at files."""
    with Collections(backing) as collections:
        collections.wait()


def assert_right_or_absent(backing: Backing, data: bytes) -> None:
    """Invariant 1, whatever moment the process was killed in."""
    digest = Digest.of(data)
    if is_stored(backing, digest) or blob_file(backing, digest).exists():
        assert blob_file(backing, digest).read_bytes() == data


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("way", "how", "named"),
    [
        (Way.SEED, "copy", True),
        (Way.SEED, "copy", False),
        (Way.SEED, "move", False),
        (Way.STREAM, "move", True),
    ],
)
def test_ingest_killed_at_each_step_is_undone_or_done_and_can_be_repeated(
    backing: Backing,
    settings: Settings,
    place: Path,
    way: Way,
    how: str,
    named: bool,
) -> None:
    """SIGKILL before every change on disk and every chunk; then recovery; then once more."""
    killed = 0
    for steps in range(MOST_STEPS):
        data = random_bytes(LARGE)
        (place / "f").write_bytes(data)
        digest = Digest.of(data) if named else None
        status = run_worker(settings, way, digest, how, steps, place / "f")
        assert_right_or_absent(backing, data)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        assert (place / "f").exists() or is_stored(backing, Digest.of(data))
        if steps % 2:  # with and without a recovery in between
            recover(backing)
            sweep_orphans(backing)
            assert_nothing_left(backing)
            registered = is_stored(backing, Digest.of(data))
            assert blob_file(backing, Digest.of(data)).exists() is registered
        if (place / "f").exists():
            repeat(backing, way, digest, how, place / "f")
        assert blob_file(backing, Digest.of(data)).read_bytes() == data
        assert blob_file(backing, Digest.of(data)).stat().st_nlink == 1
        assert (place / "f").exists() is (how == "copy")
    else:
        raise AssertionError("every run was killed")
    assert killed >= 5
    recover(backing)
    assert_nothing_left(backing)
    for blob in own_blobs(backing):
        assert Digest.of(blob_file(backing, blob).read_bytes()) == blob
