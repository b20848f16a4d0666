"""Recovery removes what nobody needs and nothing else."""

import subprocess
from dataclasses import replace

from cas.containerd.client import Containerd
from cas.model.labels import VOLUME, VOLUMES_DIRECTORY
from cas.model.layout import Layout
from cas.model.settings import Settings
from cas.store.layers.extraction_key import extraction_key
from cas.volumes.volumes import RecoveryAction, VolumeState
from tests.support.images import BuiltImage
from tests.support.volumes import Store, open_store, volume_name


def _actions(store: Store) -> list[tuple[RecoveryAction, str]]:
    return [(found.action, found.object) for found in store.volumes.recover()]


def test_recover_of_healthy_store_does_nothing(store: Store, image: BuiltImage) -> None:
    """Volumes, mounted or not, read-only or not, are as they were."""
    mounted, plain, view = volume_name(1), volume_name(2), volume_name(3)
    store.volumes.prepare(mounted, image.name, activate=True)
    store.volumes.prepare(plain, image.name)
    store.volumes.prepare(view, image.name, read_only=True, activate=True)
    before = list(store.volumes.iter_volumes()), list(store.backing.snapshots.iter_snapshots())
    assert store.volumes.recover() == []
    after = list(store.volumes.iter_volumes()), list(store.backing.snapshots.iter_snapshots())
    assert after == before


def test_recover_undoes_preparations_and_finishes_removals(store: Store, image: BuiltImage) -> None:
    """Each with its snapshot; a second run finds nothing."""
    layout = store.settings.layout
    preparing, removing, whole = (volume_name(number) for number in range(3))
    for name in (preparing, removing, whole):
        store.volumes.prepare(name, image.name)
    layout.volume(preparing).rename(layout.volume_preparing(preparing))
    layout.volume(removing).rename(layout.volume_removing(removing))
    assert set(_actions(store)) == {
        (RecoveryAction.UNDID_PREPARATION, str(layout.volume_preparing(preparing))),
        (RecoveryAction.FINISHED_REMOVAL, str(layout.volume_removing(removing))),
    }
    assert store.snapshots() == {str(whole), *image.chain_ids}
    assert [status.name for status in store.volumes.iter_volumes()] == [whole]
    assert store.volumes.recover() == []
    store.assert_nothing_is_running()


def test_recover_removes_snapshots_without_volume(store: Store, image: BuiltImage) -> None:
    """A kill between the snapshot and the directory leaves only the snapshot."""
    name = volume_name()
    store.unpack_image(image.name)
    with store.leasing.hold("test") as lease:
        labels = {
            "containerd.io/gc.root": "now",
            VOLUME: str(name),
            VOLUMES_DIRECTORY: str(store.settings.layout.volumes),
        }
        store.backing.snapshots.prepare(str(name), image.chain_ids[-1], lease.id, labels)
    assert _actions(store) == [(RecoveryAction.REMOVED_SNAPSHOT, str(name))]
    assert store.snapshots() == set(image.chain_ids)


def test_recover_never_takes_the_snapshot_of_a_complete_volume(
    store: Store, image: BuiltImage
) -> None:
    """Even when leftovers of the same name lie beside it."""
    name, layout = volume_name(), store.settings.layout
    status = store.volumes.prepare(name, image.name, activate=True)
    (status.rootfs / "data").write_text("precious")
    layout.volume_removing(name).mkdir()
    layout.volume_preparing(name).mkdir()
    assert {action for action, _ in _actions(store)} == {
        RecoveryAction.UNDID_PREPARATION,
        RecoveryAction.FINISHED_REMOVAL,
    }
    store.volumes.deactivate(name)
    store.volumes.activate(name)
    assert (status.rootfs / "data").read_text() == "precious"
    store.assert_nothing_is_running()


def test_recover_leaves_snapshots_of_another_persist_directory(
    containerd: Containerd, settings: Settings, store: Store, image: BuiltImage
) -> None:
    """The same containerd with the wrong --persist must not cost anybody his data."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    elsewhere = replace(settings, persist=settings.persist / "elsewhere", address=settings.socket)
    other = open_store(containerd, elsewhere)
    assert other.volumes.recover() == []
    assert store.volumes.get(name).state is VolumeState.INACTIVE


def test_recover_without_volumes_directory_removes_nothing(store: Store, image: BuiltImage) -> None:
    """A directory that is not there, or not mounted, is no proof that volumes are gone."""
    name, volumes = volume_name(), store.settings.layout.volumes
    store.volumes.prepare(name, image.name)
    hidden = volumes.rename(volumes.with_name("hidden"))
    try:
        assert store.volumes.recover() == []
    finally:
        hidden.rename(volumes)
    assert store.volumes.get(name).state is VolumeState.INACTIVE


def test_recover_leaves_running_work_alone(store: Store, image: BuiltImage) -> None:
    """Whoever holds the volume's lock is at work, whatever it looks like."""
    name, layout = volume_name(), store.settings.layout
    store.volumes.prepare(name, image.name)
    layout.volume(name).rename(layout.volume_preparing(name))
    with store.locks.volume(name):
        assert [action for action, _ in _actions(store)] == [RecoveryAction.SKIPPED] * 2
        assert str(name) in store.snapshots()
        layout.volume_preparing(name).rename(layout.volume(name))
    assert store.volumes.recover() == []
    assert store.volumes.get(name).state is VolumeState.INACTIVE


def test_recover_removes_extractions_that_no_lease_holds(store: Store, image: BuiltImage) -> None:
    """One that a lease holds is in use."""
    resolved = store.images.resolve(image.name)
    held, dropped = (extraction_key(resolved.layers[0].chain_id) for _ in range(2))
    with store.leasing.hold("test") as lease:
        store.backing.snapshots.prepare(held, "", lease.id, {})
        root = {"containerd.io/gc.root": "keeps it from the collection for this test"}
        with store.leasing.hold("dead") as dead:
            store.backing.snapshots.prepare(dropped, "", dead.id, root)
        assert _actions(store) == [(RecoveryAction.REMOVED_SNAPSHOT, dropped)]
        assert store.snapshots() == {held}


def test_recover_reports_mounts_without_volume(store: Store, image: BuiltImage) -> None:
    """They are somebody else's to unmount."""
    name = volume_name()
    store.volumes.prepare(name, image.name, activate=True)
    stray = store.settings.layout.volumes / "stray"
    stray.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "foreign", stray], check=True)
    assert _actions(store) == [(RecoveryAction.REPORTED_MOUNT, str(stray))]
    assert stray.is_mount()


def test_recover_of_mounted_leftover_skips_it(store: Store, image: BuiltImage) -> None:
    """Nothing is deleted through a mount, and the rest is done all the same."""
    layout = store.settings.layout
    first, second = volume_name(1), volume_name(2)
    store.volumes.prepare(first, image.name, activate=True)
    store.volumes.prepare(second, image.name)
    layout.volume(first).rename(layout.volume_removing(first))
    layout.volume(second).rename(layout.volume_removing(second))
    actions = {path: action for action, path in _actions(store)}
    assert actions[str(layout.volume_removing(first))] is RecoveryAction.SKIPPED
    assert actions[str(layout.volume_removing(second))] is RecoveryAction.FINISHED_REMOVAL
    assert (layout.volume_removing(first) / "rootfs/etc/passwd").exists()
    assert store.snapshots() == {str(first), *image.chain_ids}


def test_recover_removes_temporary_directories(store: Store) -> None:
    """What a kill left of making a directory; names that only look alike stay."""
    volumes = Layout(store.settings.persist).volumes
    (volumes / ".0123456789abcdef.cas-temporary").mkdir()
    (volumes / "visible.cas-temporary").mkdir()
    assert _actions(store) == [(RecoveryAction.REMOVED_TEMPORARY, str(volumes))]
    assert [path.name for path in volumes.iterdir()] == ["visible.cas-temporary"]
