"""containerd dies in the middle of an ingest, or the power goes; acknowledged blobs stay."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import UnavailableError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import CHUNK_BYTES
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import BytesSource
from cas.store.leasing import Leasing
from tests.support.daemon import connect, private_daemon, settings_for
from tests.support.loopfs import LoopFileSystem
from tests.support.stores import (
    WatchedSource,
    assert_nothing_left,
    backing_for,
    blob_file,
    random_bytes,
)

ROOT = Path(__file__).parents[2]
LARGE = 5 * CHUNK_BYTES + 4321
ROOTED = {GC_ROOT: "test"}


@pytest.mark.slow
@pytest.mark.parametrize("way", [Way.SEED, Way.STREAM])
@pytest.mark.parametrize("named", [True, False])
def test_containerd_killed_in_the_middle_is_reported_and_the_ingest_can_be_repeated(
    restartable_daemon: Daemon, way: Way, named: bool
) -> None:
    """The caller gets an error that says so; after the restart the same call succeeds."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)

    def kill(number: int) -> None:
        if number == 3:
            restartable_daemon.kill()

    with connect(restartable_daemon.settings) as containerd:
        backing = backing_for(containerd, restartable_daemon.settings)
        with Leasing(backing).hold("before") as lease:
            kept = Ingest(backing).ingest(BytesSource(data[:-1]), lease, labels=ROOTED, way=way)
            with pytest.raises(UnavailableError):
                Ingest(backing).ingest(
                    WatchedSource(data, kill), lease, expected=digest if named else None, way=way
                )
    restartable_daemon.start()
    with connect(restartable_daemon.settings) as containerd:
        backing = backing_for(containerd, restartable_daemon.settings)
        with Leasing(backing).hold("after") as lease:
            result = Ingest(backing).ingest(
                BytesSource(data), lease, expected=digest, labels=ROOTED, way=way
            )
        assert result.digest == digest
        for stored, content in ((kept.digest, data[:-1]), (digest, data)):
            assert blob_file(backing, stored).read_bytes() == content
        for left in list(backing.leases.iter_leases()):
            backing.leases.delete(left.id, sync=True)
        assert_nothing_left(backing)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", [Way.SEED, Way.STREAM])
def test_power_cut_while_ingesting_keeps_what_was_acknowledged(
    loop_ext4: Callable[[int], LoopFileSystem],
    containerd_binary: str,
    tmp_path: Path,
    way: Way,
) -> None:
    """Whatever was printed as durable is there and whole; the rest is done by a repetition."""
    files = []
    for number in range(40):
        size = random.choice([5000, CHUNK_BYTES + 5000])
        files.append(tmp_path / str(number))
        files[-1].write_bytes(random_bytes(size))
    disk = loop_ext4(512 * CHUNK_BYTES)
    settings = settings_for(disk.path, containerd_binary)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    cut_after = random.Random(seed).randrange(1, 20)
    with private_daemon(settings) as daemon:
        worker = start_worker(daemon, way, files)
        acknowledged = [read_line(worker) for _ in range(cut_after)]
        disk.power_cut()
        daemon.kill()
        worker.kill()
        acknowledged += worker.communicate()[0].split()
    disk.remount()
    with private_daemon(settings) as daemon, connect(settings) as containerd:
        backing = backing_for(containerd, settings)
        for digest in map(Digest.parse, acknowledged):
            assert Digest.of(b"".join(backing.content.read(digest))) == digest
        for blob in backing.content.iter_blobs():
            file = blob_file(backing, blob.digest)
            assert not file.exists() or Digest.of(file.read_bytes()) == blob.digest
        again = start_worker(daemon, way, files)
        assert len(again.communicate()[0].split()) == len(files)
        for path in files:
            digest = Digest.of(path.read_bytes())
            assert b"".join(backing.content.read(digest)) == path.read_bytes()


def start_worker(daemon: Daemon, way: Way, files: list[Path]) -> "subprocess.Popen[str]":
    settings = daemon.settings
    arguments = [settings.socket, settings.persist, settings.namespace, way, "-", "copy", -1]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.ingest_worker", *map(str, [*arguments, *files])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    assert line, "the worker ended early"
    return line
