"""The fixtures that all integration tests stand on."""

import os
from collections.abc import Callable
from pathlib import Path

from cas.containerd.client import Containerd
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.records import LeaseID
from cas.model.settings import Settings
from tests.support.daemon import empty_namespace, mounts_below
from tests.support.loopfs import LoopFileSystem


def test_settings_of_a_test_name_its_own_namespace(
    settings: Settings, containerd: Containerd
) -> None:
    """Nothing of another test is in sight."""
    assert containerd.namespace == settings.namespace
    assert list(containerd.content.iter_blobs()) == []


def test_empty_namespace_removes_rooted_snapshots_of_collected_children(
    containerd: Containerd,
) -> None:
    """containerd's removal refuses a parent whose child a collection took; cleaning does not."""
    lease = containerd.leases.create(LeaseID("l"), {}).id
    containerd.snapshots.prepare("k", "", lease, {})
    containerd.snapshots.commit("parent", "k", lease, {GC_ROOT: "now"})
    containerd.snapshots.prepare("child", "parent", lease, {})
    containerd.leases.delete(lease, sync=True)
    assert [info.name for info in containerd.snapshots.iter_snapshots()] == ["parent"]

    empty_namespace(containerd)

    assert list(containerd.snapshots.iter_snapshots()) == []
    assert containerd.namespace not in containerd.namespaces.iter_namespaces()


def test_empty_namespace_removes_files_without_record(containerd: Containerd) -> None:
    """What a test has put among the blobs is not there for the next one."""
    assert containerd.blobs_directory is not None
    containerd.blobs_directory.mkdir(parents=True, exist_ok=True)
    orphan = containerd.blobs_directory / Digest.of(b"never registered").hex
    orphan.write_bytes(b"never registered")

    empty_namespace(containerd)

    assert not orphan.exists()


def test_power_cut_unsynced_file_is_lost(
    loop_ext4: Callable[[int], LoopFileSystem],
) -> None:
    """The simulated power cut loses what was not synced and keeps what was."""
    system = loop_ext4(32 * 1024 * 1024)
    kept = system.path / "kept"
    with kept.open("wb") as file:
        file.write(b"kept")
        file.flush()
        os.fsync(file.fileno())
    (system.path / "lost").write_bytes(b"lost")

    system.power_cut()
    system.remount()

    assert kept.read_bytes() == b"kept"
    assert not (system.path / "lost").exists()
    assert mounts_below(system.path.parent) == [system.path]
    assert isinstance(system.image, Path)
