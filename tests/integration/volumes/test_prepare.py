"""Volumes are made from images, completely or not at all."""

import json
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cas.errors import (
    AlreadyExistsError,
    CasError,
    ContentMissingError,
    CorruptVolumeError,
    DiffIDMismatchError,
    ImageNotFoundError,
    InterruptedOperationError,
    StorageError,
    VolumeConflictError,
)
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import VOLUME, VOLUMES_DIRECTORY
from cas.model.records import LeaseInfo, SnapshotKind
from cas.model.settings import Settings
from cas.volumes.volumes import VolumeState
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.volumes import Recorder, Store, add_image, volume_name


def test_prepare_makes_the_documented_directory(store: Store, image: BuiltImage) -> None:
    """Mount point, image config and record, and nothing else; readable by root alone."""
    name = volume_name(3)
    status = store.volumes.prepare(name, image.name)
    directory = store.settings.layout.volume(name)
    assert directory.name == str(name)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"rootfs": 0o755, "image-config.json": 0o644, "volume.json": 0o644}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert status.state is VolumeState.INACTIVE
    assert status.problem is None
    config = (directory / "image-config.json").read_text()
    assert json.loads(config) == json.loads(image.config)
    assert '\n    "architecture"' in config
    assert status.record is not None
    assert status.record.image == image.name
    assert str(status.record.manifest_digest) == image.digest
    assert str(status.record.root_digest) == image.digest
    assert str(status.record.chain_id) == image.chain_ids[-1]
    store.assert_nothing_is_running()


def test_prepare_roots_a_snapshot_of_the_volume_s_name(store: Store, image: BuiltImage) -> None:
    """No collection takes it, even when the image is gone."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    store.backing.images.delete(image.name, sync=True)
    info = store.backing.snapshots.stat(str(name))
    assert info.kind is SnapshotKind.ACTIVE
    assert info.parent == image.chain_ids[-1]
    assert info.labels[VOLUME] == str(name)
    assert info.labels[VOLUMES_DIRECTORY] == str(store.settings.layout.volumes)
    assert store.snapshots() == {str(name), *image.chain_ids}


def test_prepare_again_leaves_the_data_alone(store: Store, image: BuiltImage) -> None:
    """Same name, same image: the same volume, mounted or not."""
    name = volume_name()
    first = store.volumes.prepare(name, image.name, activate=True)
    (first.rootfs / "data").write_text("precious")
    again = store.volumes.prepare(name, image.name)
    assert again == first
    assert (again.rootfs / "data").read_text() == "precious"
    store.volumes.deactivate(name)
    assert store.volumes.prepare(name, image.name, activate=True) == first
    assert (again.rootfs / "data").read_text() == "precious"


def test_prepare_again_without_the_image_returns_the_volume(
    store: Store, image: BuiltImage
) -> None:
    """A volume does not need its image any more."""
    name = volume_name()
    first = store.volumes.prepare(name, image.name)
    store.backing.images.delete(image.name, sync=True)
    assert store.volumes.prepare(name, image.name) == first
    with pytest.raises(VolumeConflictError):
        store.volumes.prepare(name, "example.com/other:1")


def test_prepare_from_another_image_is_a_conflict(store: Store, image: BuiltImage) -> None:
    """The volume stays as it was, and the message names the generation as the way out."""
    name = volume_name()
    before = store.volumes.prepare(name, image.name)
    other = add_image(store, layered_image(1))
    with pytest.raises(VolumeConflictError, match="generation") as caught:
        store.volumes.prepare(name, other)
    assert image.name in caught.value.message
    assert store.volumes.get(name) == before


def test_prepare_after_the_reference_moved_is_a_conflict(store: Store, image: BuiltImage) -> None:
    """The same reference that means other content is another image."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    other = layered_image(1, name="example.com/other:1")
    add_image(store, other)
    target = store.backing.images.get(other.name).target
    store.backing.images.update_target(image.name, target)
    with pytest.raises(VolumeConflictError, match=str(image.digest)):
        store.volumes.prepare(name, image.name)


def test_prepare_read_only_differs_from_writable(store: Store, image: BuiltImage) -> None:
    """What exists as one is a conflict for the other."""
    name = volume_name()
    status = store.volumes.prepare(name, image.name, read_only=True, activate=True)
    assert store.backing.snapshots.stat(str(name)).kind is SnapshotKind.VIEW
    with pytest.raises(OSError, match="Read-only"):
        (status.rootfs / "data").write_text("x")
    assert store.volumes.prepare(name, image.name, read_only=True) == status
    with pytest.raises(VolumeConflictError, match="read-only"):
        store.volumes.prepare(name, image.name)


def test_prepare_of_unknown_image_leaves_nothing(store: Store) -> None:
    """Not found is not found, and nothing was begun."""
    with pytest.raises(ImageNotFoundError):
        store.volumes.prepare(volume_name(), "example.com/absent:1")
    assert list(store.volumes.iter_volumes()) == []
    assert store.snapshots() == set()
    store.assert_nothing_is_running()


def test_prepare_of_incomplete_image_leaves_nothing(store: Store) -> None:
    """A layer that is not in the store."""
    image = layered_image(2)
    add_image(store, image, leave_out=(image.layers[1].digest,))
    with pytest.raises(ContentMissingError):
        store.volumes.prepare(volume_name(), image.name)
    assert list(store.volumes.iter_volumes()) == []
    store.assert_nothing_is_running()


def test_prepare_of_lying_image_leaves_nothing(store: Store) -> None:
    """A layer that is not what the config says."""
    image = build_image(layered_image(1).layers, diff_ids=[f"sha256:{'1' * 64}"])
    add_image(store, image)
    with pytest.raises(DiffIDMismatchError):
        store.volumes.prepare(volume_name(), image.name)
    assert list(store.volumes.iter_volumes()) == []
    assert store.snapshots() == set()
    store.assert_nothing_is_running()


def test_prepare_over_foreign_snapshot_is_refused(store: Store, image: BuiltImage) -> None:
    """A snapshot of the volume's name without our labels is somebody's data."""
    name = volume_name()
    with store.leasing.hold("test") as lease:
        root = {"containerd.io/gc.root": "test"}
        store.backing.snapshots.prepare(str(name), "", lease.id, root)
    with pytest.raises(AlreadyExistsError, match=str(name)):
        store.volumes.prepare(name, image.name)
    assert str(name) in store.snapshots()
    assert list(store.volumes.iter_volumes()) == []
    store.assert_nothing_is_running()


def test_prepare_over_snapshot_of_another_persist_directory_is_refused(
    store: Store, image: BuiltImage
) -> None:
    """One containerd may serve two persist directories; the other's volume is not a leftover."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    elsewhere = {VOLUMES_DIRECTORY: "/elsewhere/vault/volumes"}
    store.backing.snapshots.update_labels(str(name), elsewhere)
    store.settings.layout.volume(name).rename(store.settings.layout.volumes / "gone")
    with pytest.raises(AlreadyExistsError):
        store.volumes.prepare(name, image.name)
    assert store.volumes.recover() == []
    assert str(name) in store.snapshots()


def test_prepare_over_leftovers_of_a_killed_one_starts_anew(
    store: Store, image: BuiltImage
) -> None:
    """Neither the snapshot nor the directory of the killed one is taken over."""
    name, layout = volume_name(), store.settings.layout
    status = store.volumes.prepare(name, image.name, activate=True)
    (status.rootfs / "half-done").touch()
    store.volumes.deactivate(name)
    layout.volume(name).rename(layout.volume_preparing(name))
    (layout.volume_preparing(name) / "half-done").touch()
    again = store.volumes.prepare(name, image.name, activate=True)
    assert not (again.rootfs / "half-done").exists()
    assert not (layout.volume(name) / "half-done").exists()
    store.assert_nothing_is_running()


def test_prepare_over_interrupted_removal_finishes_it_first(
    store: Store, image: BuiltImage
) -> None:
    """The old data is gone for good before the new volume appears."""
    name, layout = volume_name(), store.settings.layout
    status = store.volumes.prepare(name, image.name, activate=True)
    (status.rootfs / "old").touch()
    store.volumes.deactivate(name)
    layout.volume(name).rename(layout.volume_removing(name))
    again = store.volumes.prepare(name, image.name, activate=True)
    assert not (again.rootfs / "old").exists()
    store.assert_nothing_is_running()


def test_prepare_of_corrupt_volume_is_refused(store: Store, image: BuiltImage) -> None:
    """A damaged volume is not repaired by stealth: its data may be what somebody wants."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    store.backing.snapshots.remove(str(name))
    with pytest.raises(CorruptVolumeError, match="snapshot"):
        store.volumes.prepare(name, image.name)
    (store.settings.layout.volume(name) / "volume.json").write_text("{")
    with pytest.raises(CorruptVolumeError, match="record"):
        store.volumes.prepare(name, image.name)


def test_prepare_cancelled_leaves_nothing(store: Store, image: BuiltImage) -> None:
    """From another thread, at any moment."""
    cancel = Cancellation()
    with pytest.raises(InterruptedOperationError):
        store.volumes.prepare(
            volume_name(),
            image.name,
            cancel=cancel,
            progress=Recorder(on_start=lambda _: cancel.set()),
        )
    assert list(store.volumes.iter_volumes()) == []
    store.assert_nothing_is_running()


def test_prepare_on_layers_that_stand_needs_no_lease(store: Store, image: BuiltImage) -> None:
    """Two writes less to containerd's database; a collection in its middle takes nothing."""
    store.volumes.prepare(volume_name(1), image.name)
    name = volume_name(2)
    leases: list[LeaseInfo] = []

    def look(effect: Effect, path: str) -> None:
        if effect is Effect.RENAME and path.endswith(str(name)):
            leases.extend(store.backing.leases.iter_leases())
            store.backing.images.delete(image.name, sync=True)

    with observed(look):
        store.volumes.prepare(name, image.name)
    assert leases == []
    assert store.backing.snapshots.stat(str(name)).parent == image.chain_ids[-1]
    assert store.volumes.activate(name).state is VolumeState.ACTIVE
    store.volumes.deactivate(name)


def test_prepare_by_threads_at_once_gives_one_volume(store: Store, image: BuiltImage) -> None:
    """All get the same volume; layers and snapshot are made once."""
    name, start = volume_name(), threading.Barrier(4)

    def work(_: int) -> object:
        start.wait()
        return store.volumes.prepare(name, image.name)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert results == [store.volumes.get(name)] * 4
    store.assert_nothing_is_running()


def test_prepare_of_many_volumes_at_once_shares_the_layers(store: Store, image: BuiltImage) -> None:
    """Volumes of one image do not hinder each other."""
    names = [volume_name(number) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: store.volumes.prepare(name, image.name), names))
    assert {status.name for status in store.volumes.iter_volumes()} == set(names)
    assert store.snapshots() == {*map(str, names), *image.chain_ids}
    store.assert_nothing_is_running()


def test_prepare_by_processes_at_once_gives_one_volume(
    store: Store, settings: Settings, image: BuiltImage
) -> None:
    """The lock works between processes as well."""
    name = volume_name()
    command = [sys.executable, "-m", "tests.support.volume_worker", str(settings.persist)]
    command += [str(settings.socket), settings.namespace, "prepare-active", str(name), image.name]
    workers = [subprocess.Popen(command) for _ in range(3)]
    try:
        assert [worker.wait(WAIT_SECONDS) for worker in workers] == [0, 0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert store.volumes.get(name).state is VolumeState.ACTIVE
    store.assert_nothing_is_running()


class _Stop:
    """Raises at the k-th change of the file system, and at none when it is exhausted."""

    def __init__(self, position: int, error: BaseException) -> None:
        self._left, self._error = position, error
        self.raised = False

    def __call__(self, effect: Effect, path: str) -> None:
        if self._left == 0 and not self.raised:
            self.raised = True
            raise self._error
        self._left -= 1


@pytest.mark.parametrize(
    "error", [StorageError("the disk failed"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_prepare_failing_at_any_change_leaves_nothing(
    store: Store, settings: Settings, image: BuiltImage, error: BaseException
) -> None:
    """Each change of the file system in turn fails; afterwards there is a whole volume or none."""
    store.unpack_image(image.name)
    for position in range(100):
        name, stop = volume_name(), _Stop(position, error)
        try:
            with observed(stop):
                store.volumes.prepare(name, image.name)
        except (CasError, KeyboardInterrupt) as caught:
            assert caught is error  # noqa: PT017 - each position is a case of its own
        store.assert_nothing_is_running()
        exists = settings.layout.volume(name).exists()
        assert (str(name) in store.snapshots()) == exists
        if exists:
            assert store.volumes.get(name).state is VolumeState.INACTIVE
        if not stop.raised:
            break
    else:
        pytest.fail("a preparation has no hundred changes")
    assert position > 10


def test_prepare_from_image_of_two_layers_keeps_the_layers_shared(store: Store) -> None:
    """The config blob keeps the layers for the image, whoever unpacked first."""
    built = layered_image(2)
    add_image(store, built)
    name = volume_name()
    store.volumes.prepare(name, built.name)
    labels = store.backing.content.info(Digest.parse(built.config_digest)).labels
    assert labels["containerd.io/gc.ref.snapshot.overlayfs"] == built.chain_ids[-1]
    assert store.volumes.remove(name)
    store.backing.leases.collect_garbage()
    assert store.snapshots() == set(built.chain_ids)


def test_prepare_without_layers_mounts_an_empty_tree(store: Store) -> None:
    """An image of no layers is a writable bind mount, whose data stays."""
    built = build_image([])
    add_image(store, built)
    name = volume_name()
    status = store.volumes.prepare(name, built.name, activate=True)
    assert status.record is not None
    assert status.record.chain_id is None
    assert list(status.rootfs.iterdir()) == []
    (status.rootfs / "data").write_text("x")
    assert store.volumes.deactivate(name).state is VolumeState.INACTIVE
    assert list(status.rootfs.iterdir()) == []
    assert store.volumes.activate(name).state is VolumeState.ACTIVE
    assert (status.rootfs / "data").read_text() == "x"
