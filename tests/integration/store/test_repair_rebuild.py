"""A store whose containerd database is gone is rebuilt from what is on disk."""

import shutil
import subprocess

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import StoreMetadataLostError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, PIN_REASON
from cas.store.check.check import Check
from cas.store.check.findings import Finding, Problem
from cas.store.check.rebuild import RECOVERED_NAME
from cas.store.check.repair import Repair, Repaired
from cas.store.prune.prune import Prune
from cas.store.sentinel import Sentinel, SentinelState
from tests.support.daemon import connect
from tests.support.images import build_image, build_index, busybox_image
from tests.support.layers import file
from tests.support.volumes import Store, add_image, open_store, volume_name

pytestmark = pytest.mark.slow


def _open(daemon: Daemon) -> Store:
    return open_store(connect(daemon.settings), daemon.settings)


def _check(store: Store) -> list[Finding]:
    return list(
        Check(store.backing, platform=store.images.platform, judge=store.volumes.iter_volumes).run(
            read_data=True
        )
    )


def _repair(store: Store) -> list[Repaired]:
    repair = Repair(
        store.backing, images=store.images, unpack=store.unpack, recover=store.volumes.recover
    )
    return list(repair.repair(_check(store)))


def _lose_metadata(daemon: Daemon) -> None:
    daemon.stop()
    shutil.rmtree(daemon.settings.layout.case / "io.containerd.metadata.v1.bolt")
    daemon.start()


def _pin(store: Store, data: bytes) -> Digest:
    digest = Digest.of(data)
    with store.leasing.hold("test") as lease:
        store.backing.content.put("t", lease.id, data, digest, {GC_ROOT: "now"})
    return digest


def test_lost_database_is_rebuilt_from_blobs_and_volume_records(
    restartable_daemon: Daemon,
) -> None:
    """Every blob is back, images have names, and the data of volumes is not destroyed."""
    store = _open(restartable_daemon)
    Sentinel(store.backing).ensure()
    used = busybox_image()
    add_image(store, used)
    unnamed = build_image(layers=[[file("f", b"x" * 1000)]]).named("example.com/lost:1")
    add_image(store, unnamed)
    lone = _pin(store, b"a blob of its own")
    name = volume_name()
    rootfs = store.volumes.prepare(name, used.name, activate=True).rootfs
    (rootfs / "precious").write_text("data")
    store.volumes.deactivate(name)
    blobs = {str(blob.digest) for blob in store.backing.content.iter_blobs()}

    _lose_metadata(restartable_daemon)
    store = _open(restartable_daemon)
    [finding] = _check(store)
    assert finding.problem is Problem.METADATA_LOST
    prune = Prune(store.backing)
    with pytest.raises(StoreMetadataLostError):
        prune.execute(prune.plan())

    [repaired] = _repair(store)
    assert repaired.done, repaired.message
    assert Sentinel(store.backing).state() is SentinelState.PRESENT
    store.backing.leases.collect_garbage()
    present = {str(blob.digest) for blob in store.backing.content.iter_blobs()}
    assert blobs <= present
    names = {record.name for record in store.backing.images.iter_images()}
    recovered = f"{RECOVERED_NAME}:{unnamed.digest.removeprefix('sha256:')}"
    assert names == {used.name, recovered}
    assert store.images.resolve(used.name).manifest.digest == Digest.parse(used.digest)
    assert "recovered" in store.backing.content.info(lone).labels[PIN_REASON]
    [precious] = store.settings.layout.quarantine.rglob("precious")
    assert precious.read_text() == "data"
    # The volume itself is lost, and is said to be.
    assert {each.volumes for each in _check(store)} == {(str(name),)}
    assert store.volumes.remove(name, force=True)
    store.volumes.prepare(name, used.name)
    assert _check(store) == []


def test_rebuild_sets_aside_what_is_not_what_its_name_says(restartable_daemon: Daemon) -> None:
    """A file damaged meanwhile does not become a blob."""
    store = _open(restartable_daemon)
    Sentinel(store.backing).ensure()
    good, bad = _pin(store, b"good"), _pin(store, b"bad")
    directory = store.backing.blobs_directory
    assert directory is not None
    (directory / bad.hex).write_bytes(b"dab")
    _lose_metadata(restartable_daemon)
    store = _open(restartable_daemon)
    assert [each.done for each in _repair(store)] == [True]
    present = {blob.digest for blob in store.backing.content.iter_blobs()}
    assert good in present
    assert bad not in present
    assert _check(store) == []


def test_rebuild_keeps_an_index_whole(restartable_daemon: Daemon) -> None:
    """Nested documents come back under one name, not one name each."""
    store = _open(restartable_daemon)
    Sentinel(store.backing).ensure()
    image = build_image(layers=[[file("f", b"y")]])
    index = build_index([image])
    with store.leasing.hold("test") as lease:
        for text, data in index.blobs.items():
            digest = Digest.parse(text)
            store.backing.content.put(f"t{text}", lease.id, data, digest, {GC_ROOT: "now"})
    _lose_metadata(restartable_daemon)
    store = _open(restartable_daemon)
    assert [each.done for each in _repair(store)] == [True]
    [record] = store.backing.images.iter_images()
    assert str(record.target.digest) == index.digest
    assert _check(store) == []


def test_rebuild_refuses_while_a_snapshot_is_mounted(restartable_daemon: Daemon) -> None:
    """Data that somebody uses right now is not pulled away."""
    store = _open(restartable_daemon)
    Sentinel(store.backing).ensure()
    image = busybox_image()
    add_image(store, image)
    rootfs = store.volumes.prepare(volume_name(), image.name, activate=True).rootfs
    _lose_metadata(restartable_daemon)
    store = _open(restartable_daemon)
    [repaired] = _repair(store)
    assert not repaired.done
    assert str(rootfs) in repaired.message
    assert Sentinel(store.backing).state() is SentinelState.LOST
    subprocess.run(["umount", str(rootfs)], check=True)
    assert [each.done for each in _repair(store)] == [True]
