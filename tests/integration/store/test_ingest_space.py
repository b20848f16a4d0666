"""Ingest on a full disk, and its memory."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import NoSpaceError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import CHUNK_BYTES, Limits
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest, Way
from cas.store.leasing import Leasing
from tests.support.daemon import connect, private_daemon, settings_for
from tests.support.loopfs import LoopFileSystem
from tests.support.stores import (
    WatchedSource,
    assert_never_stored,
    assert_nothing_left,
    backing_for,
    random_bytes,
)

ROOT = Path(__file__).parents[3]
DISK_BYTES = 64 * CHUNK_BYTES
FILLED = 40 * CHUNK_BYTES
TOO_LARGE = 30 * CHUNK_BYTES
MOST_RESIDENT_BYTES = 100 * CHUNK_BYTES

both_ways = pytest.mark.parametrize("way", [Way.SEED, Way.STREAM])


@pytest.fixture
def small_store(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> Iterator[Backing]:
    """A store of its own on a disk that is nearly full."""
    disk = loop_ext4(DISK_BYTES)
    settings = settings_for(disk.path, containerd_binary)
    with private_daemon(settings), connect(settings) as containerd:
        limits = replace(Limits(), min_free_bytes=0)
        backing = replace(backing_for(containerd, settings), limits=limits)
        Ingest(backing).seeding_available()
        (disk.path / "filler").write_bytes(bytes(FILLED))
        yield backing


@pytest.mark.slow
@both_ways
def test_blob_that_does_not_fit_is_refused_before_anything_is_read(
    small_store: Backing, way: Way
) -> None:
    """The refusal says how many bytes are missing; nothing was written."""
    source = WatchedSource(random_bytes(TOO_LARGE))
    with Leasing(small_store).hold("test") as lease, pytest.raises(NoSpaceError) as caught:
        Ingest(small_store).ingest(source, lease, way=way)
    assert caught.value.details["needed"] == TOO_LARGE
    assert 0 < int(str(caught.value.details["missing"])) < TOO_LARGE
    assert source.offsets == []
    assert_nothing_left(small_store)


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("named", [True, False])
def test_disk_that_fills_up_while_writing_leaves_nothing_and_room_helps(
    small_store: Backing, way: Way, named: bool
) -> None:
    """A stream of unknown size meets the end of the disk; after making room it is stored."""
    data = random_bytes(TOO_LARGE)
    digest = Digest.of(data)
    ingest = Ingest(small_store)

    def run() -> Digest:
        source = WatchedSource(data, hinted=False)
        with Leasing(small_store).hold("test") as lease:
            expected = digest if named else None
            return ingest.ingest(
                source, lease, expected=expected, way=way, labels={GC_ROOT: "test"}
            ).digest

    with pytest.raises(NoSpaceError):
        run()
    small_store.leases.collect_garbage()
    assert_never_stored(small_store, digest)
    (small_store.layout.persist / "filler").unlink()
    assert run() == digest
    assert b"".join(small_store.content.read(digest)) == data


def test_blobs_at_once_do_not_share_the_same_room(
    containerd: Containerd, settings: Settings
) -> None:
    """What one ingest was promised is not promised to another one meanwhile."""
    backing = backing_for(containerd, settings)
    ingest = Ingest(backing)
    data = random_bytes(2 * CHUNK_BYTES)
    seen: list[int] = []

    def look(_number: int) -> None:
        promises = backing.layout.reservations.glob("*.reservation")
        seen.extend(int(path.read_text()) for path in promises)

    with Leasing(backing).hold("test") as lease:
        ingest.ingest(WatchedSource(data, look), lease, way=Way.STREAM)
    assert seen[:2] == [2 * CHUNK_BYTES, CHUNK_BYTES]


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from cas.model.settings import Settings
from cas.store.content.ingest import Ingest, Way
from cas.store.leasing import Leasing
from cas.store.content.sources import FileSource
from tests.support.daemon import connect
from tests.support.stores import backing_for

socket, persist, namespace, way, file = sys.argv[1:]
settings = Settings(persist=Path(persist), address=Path(socket), namespace=namespace)
with connect(settings) as containerd:
    backing = backing_for(containerd, settings)
    with Leasing(backing).hold("test") as lease:
        result = Ingest(backing).ingest(FileSource(Path(file)), lease, way=Way(way))
# Not ru_maxrss: that counts what this process was forked from.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(result.way, result.size, int(peak.split()[1]) * 1024)
"""


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.timeout(900)
@both_ways
def test_memory_does_not_grow_with_the_blob(
    settings: Settings, containerd: Containerd, tmp_path: Path, way: Way
) -> None:
    """Many times larger than what may be resident, a blob passes through that."""
    size = 5 * MOST_RESIDENT_BYTES
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    arguments = [settings.socket, settings.persist, settings.namespace, way, tmp_path / "large"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used, stored, resident = done.stdout.split()
    assert (used, int(stored)) == (way, size)
    assert int(resident) < MOST_RESIDENT_BYTES
    containerd.leases.collect_garbage()
