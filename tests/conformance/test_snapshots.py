"""Snapshots, on a real containerd."""

from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    AlreadyExistsError,
    ConflictError,
    InUseError,
    LeaseNotFoundError,
    SnapshotNotFoundError,
    UsageError,
)
from cas.model.labels import GC_ROOT
from cas.model.records import LeaseID, SnapshotKind
from cas.store import ports


@pytest.fixture
def snapshots(containerd: Containerd) -> ports.SnapshotStore:
    """The port under test."""
    return containerd.snapshots


def _commit(snapshots: ports.SnapshotStore, name: str, parent: str, lease: LeaseID) -> None:
    snapshots.prepare(f"{name}-key", parent, lease, {})
    snapshots.commit(name, f"{name}-key", lease, {})


def test_prepare_without_parent_gives_a_writable_bind(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """The base of a stack is a plain directory."""
    [mount] = snapshots.prepare("k", "", lease, {"a": "b"})

    assert mount.type == "bind"
    assert "rw" in mount.options
    info = snapshots.stat("k")
    assert (info.kind, info.parent, info.labels) == (SnapshotKind.ACTIVE, "", {"a": "b"})
    assert snapshots.mounts("k") == [mount]


def test_prepare_on_parents_gives_an_overlay_nearest_first(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """The layers below are in the order that the kernel wants."""
    _commit(snapshots, "one", "", lease)
    _commit(snapshots, "two", "one", lease)
    [one] = snapshots.view("view-of-one", "one", lease, {})

    [mount] = snapshots.prepare("k", "two", lease, {})

    assert mount.type == "overlay"
    assert mount.option("upperdir")
    lower = (mount.option("lowerdir") or "").split(":")
    assert len(lower) == 2
    assert lower[1] == one.source


def test_view_gives_read_only_mounts(snapshots: ports.SnapshotStore, lease: LeaseID) -> None:
    """A view can be mounted and not written."""
    _commit(snapshots, "one", "", lease)
    [mount] = snapshots.view("v", "one", lease, {})

    assert mount.type == "bind"
    assert "ro" in mount.options
    assert snapshots.stat("v").kind is SnapshotKind.VIEW


def test_prepare_taken_key_is_refused(snapshots: ports.SnapshotStore, lease: LeaseID) -> None:
    """A key is one snapshot."""
    snapshots.prepare("k", "", lease, {})
    with pytest.raises(AlreadyExistsError):
        snapshots.prepare("k", "", lease, {})


def test_prepare_unknown_parent_is_not_found(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """While the lease lives, it is the parent that is missing."""
    with pytest.raises(SnapshotNotFoundError):
        snapshots.prepare("k", "nothing", lease, {})


def test_prepare_without_a_live_lease_is_a_lost_lease(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """Prepare, view and commit tell a missing lease from a missing snapshot."""
    _commit(snapshots, "one", "", lease)
    snapshots.prepare("k", "one", lease, {})
    gone = LeaseID("gone")
    with pytest.raises(LeaseNotFoundError):
        snapshots.prepare("k2", "one", gone, {})
    with pytest.raises(LeaseNotFoundError):
        snapshots.view("v", "one", gone, {})
    with pytest.raises(LeaseNotFoundError):
        snapshots.commit("two", "k", gone, {})


def test_prepare_on_an_uncommitted_parent_is_refused(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """Nothing can stand on what still changes."""
    snapshots.prepare("k", "", lease, {})
    with pytest.raises(UsageError):
        snapshots.prepare("k2", "k", lease, {})


def test_commit_moves_key_to_name_with_new_labels(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """The key is free again; only the labels of the commit stay."""
    snapshots.prepare("k", "", lease, {"a": "b"})
    snapshots.commit("one", "k", lease, {"c": "d"})

    info = snapshots.stat("one")
    assert (info.kind, info.labels) == (SnapshotKind.COMMITTED, {"c": "d"})
    with pytest.raises(SnapshotNotFoundError):
        snapshots.stat("k")
    with pytest.raises(ConflictError):
        snapshots.mounts("one")


def test_commit_taken_name_is_refused_and_key_stays(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """Somebody else was faster; the key can be removed."""
    _commit(snapshots, "one", "", lease)
    snapshots.prepare("k", "", lease, {})
    with pytest.raises(AlreadyExistsError):
        snapshots.commit("one", "k", lease, {})
    assert snapshots.remove("k") is True


def test_commit_unknown_key_is_not_found(snapshots: ports.SnapshotStore, lease: LeaseID) -> None:
    """While the lease lives, it is the key that is missing."""
    with pytest.raises(SnapshotNotFoundError):
        snapshots.commit("one", "nothing", lease, {})


def test_commit_view_is_refused(snapshots: ports.SnapshotStore, lease: LeaseID) -> None:
    """A view has nothing of its own."""
    _commit(snapshots, "one", "", lease)
    snapshots.view("v", "one", lease, {})
    with pytest.raises(ConflictError):
        snapshots.commit("two", "v", lease, {})


def test_remove_snapshot_with_children_is_in_use(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """From the leaves down it works, once each."""
    _commit(snapshots, "one", "", lease)
    snapshots.prepare("k", "one", lease, {})
    with pytest.raises(InUseError):
        snapshots.remove("one")
    assert snapshots.remove("k") is True
    assert snapshots.remove("one") is True
    assert snapshots.remove("one") is False


@pytest.mark.parametrize("call", ["stat", "mounts", "usage"])
def test_absent_snapshot_is_not_found(snapshots: ports.SnapshotStore, call: str) -> None:
    """Whatever is asked of it."""
    with pytest.raises(SnapshotNotFoundError):
        getattr(snapshots, call)("nothing")


def test_update_labels_changes_only_those_named(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """A value sets, None removes, the rest stays."""
    snapshots.prepare("k", "", lease, {"a": "1", "b": "2"})
    assert snapshots.update_labels("k", {"a": None, "x/y": "3"}).labels == {"b": "2", "x/y": "3"}
    assert snapshots.update_labels("k", {}).labels == {"b": "2", "x/y": "3"}
    with pytest.raises(SnapshotNotFoundError):
        snapshots.update_labels("nothing", {"a": "b"})


def test_iter_snapshots_filter_selects_by_parent(
    snapshots: ports.SnapshotStore, lease: LeaseID
) -> None:
    """Filters are containerd's own."""
    _commit(snapshots, "one", "", lease)
    snapshots.prepare("k", "one", lease, {})
    assert {info.name for info in snapshots.iter_snapshots()} == {"one", "k"}
    assert [info.name for info in snapshots.iter_snapshots(['parent=="one"'])] == ["k"]


def test_usage_counts_the_snapshots_own_files(containerd: Containerd, lease: LeaseID) -> None:
    """What is written into a snapshot shows in its usage."""
    [mount] = containerd.snapshots.prepare("k", "", lease, {})
    before = containerd.snapshots.usage("k")
    Path(mount.source, "file").write_bytes(bytes(100_000))
    after = containerd.snapshots.usage("k")

    assert after.inodes == before.inodes + 1
    assert after.size >= before.size + 100_000


def test_collection_rooted_snapshot_stays_and_unrooted_goes(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A volume lives by the root label of its prepare."""
    containerd.snapshots.prepare("volume", "", lease, {GC_ROOT: "now"})
    containerd.snapshots.prepare("scratch", "", lease, {})
    containerd.leases.delete(lease)
    containerd.leases.collect_garbage()
    assert [info.name for info in containerd.snapshots.iter_snapshots()] == ["volume"]
