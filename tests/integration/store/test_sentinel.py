"""The sentinel on a real containerd, and on one whose database was emptied."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.errors import StoreMetadataLostError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, STORE_ID
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.blobs import Blobs
from cas.store.leasing import Leasing
from cas.store.sentinel import Sentinel, SentinelState
from tests.support.daemon import connect
from tests.support.stores import backing_for, blob_file, names


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


def sentinel_blobs(backing: Backing) -> list[Digest]:
    return [blob.digest for blob in backing.content.iter_blobs() if STORE_ID in blob.labels]


def test_store_new_is_new_and_may_delete(backing: Backing) -> None:
    """There is nothing to lose yet."""
    assert Sentinel(backing).state() is SentinelState.NEW
    Sentinel(backing).require()


def test_sentinel_made_is_complete_and_made_once(backing: Backing) -> None:
    """Label, rooted blob and marker; a second call changes nothing."""
    sentinel = Sentinel(backing)
    assert sentinel.ensure() is SentinelState.NEW
    [digest] = sentinel_blobs(backing)
    store_id = backing.namespaces.labels(backing.namespace)[STORE_ID]
    assert backing.content.info(digest).labels[STORE_ID] == store_id
    assert backing.content.info(digest).labels[GC_ROOT]
    marker = backing.layout.store_marker(backing.namespace).read_bytes()
    assert Digest.of(marker) == digest
    assert sentinel.ensure() is SentinelState.PRESENT
    assert sentinel_blobs(backing) == [digest]
    assert list(backing.leases.iter_leases()) == []
    backing.leases.collect_garbage()
    assert sentinel.state() is SentinelState.PRESENT


@pytest.mark.parametrize("part", ["label", "blob", "root", "marker"])
def test_sentinel_that_lacks_a_part_is_completed_with_the_same_id(
    backing: Backing, part: str
) -> None:
    """One part is enough to know the store by; the others are made again."""
    sentinel = Sentinel(backing)
    sentinel.ensure()
    [digest] = sentinel_blobs(backing)
    store_id = backing.content.info(digest).labels[STORE_ID]
    if part == "label":
        backing.namespaces.set_labels(backing.namespace, {STORE_ID: ""})
    elif part == "blob":
        backing.content.delete(digest)
    elif part == "root":
        backing.content.update_labels(digest, {GC_ROOT: None})
    else:
        backing.layout.store_marker(backing.namespace).unlink()
    assert sentinel.ensure() is SentinelState.PRESENT
    assert sentinel_blobs(backing) == [digest]
    assert backing.namespaces.labels(backing.namespace)[STORE_ID] == store_id
    assert backing.content.info(digest).labels[GC_ROOT]
    assert backing.layout.store_marker(backing.namespace).exists()


def test_store_within_a_used_containerd_is_new(
    backing: Backing, containerd: Containerd, settings: Settings
) -> None:
    """Blobs of another namespace do not make an unknown namespace a lost one."""
    Sentinel(backing).ensure()
    other = replace(settings, namespace=f"{settings.namespace}-b")
    second = backing_for(containerd.in_namespace(other.namespace), other)
    assert Sentinel(second).state() is SentinelState.NEW


@pytest.fixture
def emptied(restartable_daemon: Daemon) -> Iterator[tuple[Backing, list[Digest]]]:
    """A store with blobs whose containerd came back with an empty database."""
    settings = restartable_daemon.settings
    files = [settings.persist / str(number) for number in range(3)]
    for file in files:
        file.write_bytes(file.name.encode() * 100)
    with connect(settings) as containerd:
        backing = backing_for(containerd, settings)
        Sentinel(backing).ensure()
        digests = [result.digest for result in Blobs(backing).ingest_many(files)]
    restartable_daemon.stop()
    database(settings).unlink()
    restartable_daemon.start()
    with connect(settings) as containerd:
        yield backing_for(containerd, settings), digests


def database(settings: Settings) -> Path:
    return settings.layout.case / "io.containerd.metadata.v1.bolt" / "meta.db"


@pytest.mark.slow
def test_database_emptied_is_noticed_and_nothing_is_deleted(
    emptied: tuple[Backing, list[Digest]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is asked for, the orphaned blobs stay on disk until the store is rebuilt."""
    backing, digests = emptied
    sentinel = Sentinel(backing)
    with caplog.at_level(logging.WARNING, "cas"):
        assert sentinel.ensure() is SentinelState.LOST
    assert "store metadata is lost" in caplog.text
    blobs = Blobs(backing)
    with pytest.raises(StoreMetadataLostError):
        blobs.remove(digests[0])
    with pytest.raises(StoreMetadataLostError):
        blobs.ingest(backing.layout.persist / "0")
    with pytest.raises(StoreMetadataLostError):
        list(blobs.ingest_many([backing.layout.persist / "1"]))
    assert Leasing(backing).reap() == []
    backing.leases.collect_garbage()
    assert all(blob_file(backing, digest).exists() for digest in digests)
    assert sentinel.state() is SentinelState.LOST


@pytest.mark.slow
def test_database_emptied_is_noticed_without_the_marker_as_well(
    emptied: tuple[Backing, list[Digest]],
) -> None:
    """Blobs on disk and a containerd that knows no namespace at all are enough."""
    backing, digests = emptied
    backing.layout.store_marker(backing.namespace).unlink()
    assert Sentinel(backing).state() is SentinelState.LOST
    assert blob_file(backing, digests[0]).exists()


@pytest.mark.slow
def test_volumes_and_a_database_that_knows_nothing_mean_lost_metadata(
    restartable_daemon: Daemon,
) -> None:
    """Where neither marker nor blobs can be seen, a volume proves that there was a store."""
    with connect(restartable_daemon.settings) as containerd:
        backing = backing_for(containerd, restartable_daemon.settings, blobs_directory=None)
        assert Sentinel(backing).state() is SentinelState.NEW
        haunted = replace(backing, volumes=lambda: iter([None]))  # type: ignore[list-item]
        assert Sentinel(haunted).state() is SentinelState.LOST
        Sentinel(backing).ensure()
        assert Sentinel(haunted).state() is SentinelState.PRESENT


@pytest.mark.slow
def test_sentinel_established_after_a_rebuild_makes_the_store_writable(
    emptied: tuple[Backing, list[Digest]],
) -> None:
    """The rebuild registers the blobs and then says so; afterwards all is as before."""
    backing, digests = emptied
    with Leasing(backing).hold("rebuild") as lease:
        for digest in digests:
            size = blob_file(backing, digest).stat().st_size
            assert backing.content.adopt(
                f"r-{digest.hex}", lease.id, digest, size, {GC_ROOT: "test"}
            )
        Sentinel(backing).establish(lease)
    blobs = Blobs(backing)
    assert list(blobs.missing(digests)) == []
    assert blobs.remove(digests[0])
    backing.leases.collect_garbage()
    assert not blob_file(backing, digests[0]).exists()
    assert len(names(blob_file(backing, digests[1]).parent)) == len(digests)
