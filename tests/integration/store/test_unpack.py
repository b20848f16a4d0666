"""Layers become snapshots, on a real containerd."""

import gzip
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    ContentMissingError,
    DaemonVersionError,
    DiffIDMismatchError,
    InterruptedOperationError,
    LayerError,
    LimitExceededError,
    NoSpaceError,
)
from cas.fsops.mounts import mount, unmount
from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import DURABLE
from cas.model.settings import Settings
from cas.store.layers.durability import LayerDurability
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import build_image, busybox_image, layered_image
from tests.support.layers import (
    BuiltLayer,
    Compression,
    Entry,
    directory,
    file,
    hard_link,
    symlink,
)
from tests.support.stores import utc_now
from tests.support.volumes import (
    Recorder,
    Store,
    add_image,
    open_store,
    snapshot_directories,
)


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    return open_store(containerd, settings)


@contextmanager
def _shown(store: Store, snapshot: str, target: Path) -> Iterator[Path]:
    """Mount a read-only view of a committed snapshot."""
    target.mkdir()
    with store.leasing.hold("test") as lease:
        mounts = store.backing.snapshots.view(f"view-{target.name}", snapshot, lease.id, {})
        mount(mounts, target)
        try:
            yield target
        finally:
            unmount(target)
            store.backing.snapshots.remove(f"view-{target.name}")


def _describe(path: Path) -> tuple[str, int, int]:
    status = path.lstat()
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid


def test_unpack_of_image_gives_the_tree_of_its_layers(store: Store, tmp_path: Path) -> None:
    """Whiteouts, opaque and implied directories, links, owners, modes, xattrs; gzip, zstd, tar."""
    image = busybox_image()
    top = store.unpack_image(add_image(store, image))
    assert top == image.chain_ids[-1]
    with _shown(store, top, tmp_path / "m") as root:
        assert _describe(root / "tmp")[0] == "drwxrwxrwt"
        assert _describe(root / "root/private")[0] == "drwx------"
        assert _describe(root / "opt/app") == ("drwxr-xr-x", 1000, 1000)
        assert (root / "opt/app/new-too").samefile(root / "opt/app/new")
        assert sorted(path.name for path in (root / "opt/app").iterdir()) == ["new", "new-too"]
        assert not (root / "etc/obsolete").exists()
        assert (root / "bin/sh").readlink() == Path("busybox")
        assert os.getxattr(root / "etc/with-xattr", "user.test") == b"value"
        assert (root / "tmp/implied").read_text() == "below an implied directory\n"
    store.assert_nothing_is_running()


def test_unpack_labels_snapshots_layers_and_config(store: Store) -> None:
    """The labels by which containerd keeps the snapshots, and ours that vouches for them."""
    image = layered_image(3)
    store.unpack_image(add_image(store, image))
    for chain_id in image.chain_ids:
        labels = store.backing.snapshots.stat(chain_id).labels
        assert labels["containerd.io/snapshot.ref"] == chain_id
        assert datetime.fromisoformat(labels[DURABLE]) <= utc_now()
    for layer in image.layers:
        labels = store.backing.content.info(Digest.parse(layer.digest)).labels
        assert labels["containerd.io/uncompressed"] == layer.diff_id
    labels = store.backing.content.info(Digest.parse(image.config_digest)).labels
    assert labels["containerd.io/gc.ref.snapshot.overlayfs"] == image.chain_ids[-1]


def test_unpacked_layers_live_as_long_as_the_image(store: Store) -> None:
    """A collection keeps them while the image exists and takes them when it is gone."""
    image = layered_image(2)
    reference = add_image(store, image)
    store.unpack_image(reference)
    store.backing.leases.collect_garbage()
    assert store.snapshots() == set(image.chain_ids)
    store.backing.images.delete(reference, sync=True)
    assert store.snapshots() == set()


def test_unpack_again_does_nothing(store: Store) -> None:
    """No layer is touched, and the answer is the same."""
    image = layered_image(3)
    reference = add_image(store, image)
    top = store.unpack_image(reference)
    before = list(store.backing.snapshots.iter_snapshots())
    progress = Recorder()
    assert store.unpack_image(reference, progress=progress) == top
    assert progress.started == []
    assert list(store.backing.snapshots.iter_snapshots()) == before


def test_unpack_with_lost_config_label_sets_it_again(store: Store) -> None:
    """The label is always there afterwards, since without it a collection takes the snapshots."""
    image = layered_image(2)
    reference = add_image(store, image)
    store.unpack_image(reference)
    config, label = Digest.parse(image.config_digest), "containerd.io/gc.ref.snapshot.overlayfs"
    store.backing.content.update_labels(config, {label: None})
    with store.leasing.hold("test") as lease:
        resolved = store.images.resolve(reference)
        assert not store.unpack.is_unpacked(resolved)
        store.unpack.unpack(resolved, lease)
        assert store.unpack.is_unpacked(resolved)
    assert store.backing.content.info(config).labels[label] == image.chain_ids[-1]


def test_unpack_of_image_with_common_layers_unpacks_only_the_others(store: Store) -> None:
    """A layer is unpacked once per chain, whichever image it belongs to."""
    base = [[file("base", b"1")], [file("more", b"2")]]
    first = build_image(base, name="example.com/first:1")
    second = build_image([*base, [file("own", b"3")]], name="example.com/second:1")
    store.unpack_image(add_image(store, first))
    progress = Recorder()
    store.unpack_image(add_image(store, second), progress=progress)
    assert progress.started == [second.layers[2].digest] == progress.finished
    assert progress.advanced == len(second.layers[2].blob)


def test_unpack_of_image_without_layers_gives_nothing(store: Store) -> None:
    """There is no snapshot to name."""
    assert store.unpack_image(add_image(store, build_image([]))) == "None"
    assert store.snapshots() == set()


def test_unpack_with_lying_diff_id_fails_and_leaves_nothing(
    store: Store, settings: Settings
) -> None:
    """The message has both diff IDs, and neither snapshot nor files stay."""
    before = snapshot_directories(settings)
    honest = layered_image(2)
    lie = f"sha256:{'0' * 64}"
    image = build_image(honest.layers, diff_ids=[honest.diff_ids[0], lie], name="lie:1")
    reference = add_image(store, image)
    with pytest.raises(DiffIDMismatchError) as caught:
        store.unpack_image(reference)
    assert lie in caught.value.message
    assert honest.diff_ids[1] in caught.value.message
    store.assert_nothing_is_running()
    store.backing.leases.collect_garbage()
    assert store.snapshots() == set()
    assert snapshot_directories(settings) <= before


@pytest.mark.parametrize(
    "blob",
    [
        gzip.compress(os.urandom(100_000))[:-50_000],
        b"this is neither compressed nor a tar" * 100,
        gzip.compress(b"this is no tar" * 100),
        b"\x28\xb5\x2f\xfd" + b"garbage after the magic of zstd" * 10,
    ],
    ids=["truncated", "plain-garbage", "compressed-garbage", "zstd-garbage"],
)
def test_unpack_of_unreadable_layer_fails_and_leaves_nothing(store: Store, blob: bytes) -> None:
    """Whatever is wrong with the bytes, it is the layer's error."""
    layer = BuiltLayer(tar=blob, blob=blob, compression=Compression.GZIP)
    reference = add_image(store, build_image([layer]))
    with pytest.raises((LayerError, DiffIDMismatchError)) as caught:
        store.unpack_image(reference)
    assert layer.digest in caught.value.message
    store.assert_nothing_is_running()
    assert store.snapshots() == set()


def test_unpack_of_missing_layer_says_so(store: Store) -> None:
    """The layer's digest and what to do."""
    image = layered_image(2)
    reference = add_image(store, image, leave_out=(image.layers[1].digest,))
    with pytest.raises(ContentMissingError, match=image.layers[1].digest):
        store.unpack_image(reference)
    store.assert_nothing_is_running()


def test_unpack_of_bomb_stops_at_the_limit(containerd: Containerd, settings: Settings) -> None:
    """A layer that expands beyond all measure is refused, and its files are gone at once."""
    limits = replace(settings.limits, layer_expansion=2, layer_expansion_floor_bytes=1 << 20)
    store = open_store(containerd, settings, adapt=lambda each: replace(each, limits=limits))
    before = snapshot_directories(settings)
    bomb = build_image([[file("zeros", bytes(64 << 20))]])
    with pytest.raises(LimitExceededError, match="1048576"):
        store.unpack_image(add_image(store, bomb))
    store.assert_nothing_is_running()
    assert store.snapshots() == set()
    assert snapshot_directories(settings) <= before


def test_unpack_without_room_is_refused_before_it_begins(
    containerd: Containerd, settings: Settings
) -> None:
    """What would not fit is not begun, and the error says how much is missing."""
    free = free_bytes(settings.persist)
    limits = replace(settings.limits, min_free_bytes=free + 10**12)
    store = open_store(containerd, settings, adapt=lambda each: replace(each, limits=limits))
    with pytest.raises(NoSpaceError) as caught:
        store.unpack_image(add_image(store, layered_image(1)))
    assert int(str(caught.value.details["missing"])) > 0
    store.assert_nothing_is_running()


@pytest.mark.parametrize(
    "entries",
    [
        [file("../../escaped", b"x")],
        [file("/../../../../escaped", b"x")],
        [symlink("out", "/"), file("out/escaped", b"x")],
        [symlink("up", "../../../../../../.."), file("up/escaped", b"x")],
        [directory("d"), symlink("d/l", "/"), directory("d/l/escaped")],
    ],
)
def test_unpack_of_path_traversal_stays_inside(
    store: Store, settings: Settings, entries: list[Entry]
) -> None:
    """Names and links that lead out of the tree end inside it or are refused."""
    try:
        store.unpack_image(add_image(store, build_image([entries])))
    except LayerError:
        assert store.snapshots() == set()
    outside = [Path("/escaped"), settings.persist / "escaped", settings.layout.case / "escaped"]
    assert not any(os.path.lexists(path) for path in outside)
    for path in settings.layout.case.rglob("escaped"):
        assert "fs" in path.parts
    store.assert_nothing_is_running()


def test_unpack_of_hard_link_to_the_outside_is_refused(store: Store) -> None:
    """A link cannot reach a file that the layer does not have."""
    image = build_image([[hard_link("passwd", "../../../../../../../../etc/passwd")]])
    with pytest.raises(LayerError):
        store.unpack_image(add_image(store, image))
    assert store.snapshots() == set()


@contextmanager
def _foreign(store: Store, names: list[str]) -> Iterator[None]:
    """Do what a client does that knows nothing of durability, badly: commit empty layers."""
    with store.leasing.hold("foreign") as lease:
        for parent, name in zip(["", *names], names, strict=False):
            store.backing.snapshots.prepare(f"foreign {name}", parent, lease.id, {})
            store.backing.snapshots.commit(name, f"foreign {name}", lease.id, {})
        yield


def test_unpack_on_fresh_snapshots_of_another_client_vouches_for_them(store: Store) -> None:
    """While the kernel that wrote them runs they can be synced late; nothing is unpacked again."""
    image = layered_image(3)
    reference = add_image(store, image)
    progress = Recorder()
    with _foreign(store, image.chain_ids[:2]):
        store.unpack_image(reference, progress=progress)
    assert progress.started == [image.layers[2].digest]
    assert all(store.backing.snapshots.stat(name).labels.get(DURABLE) for name in image.chain_ids)
    store.assert_nothing_is_running()


@pytest.fixture
def doubting(containerd: Containerd, settings: Settings) -> Store:
    """A store to which snapshots are of the future, so that their age proves nothing."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    return open_store(
        containerd, settings, adapt=lambda backing: replace(backing, clock=lambda: past)
    )


def _unpack_doubting(store: Store, doubting: Store, reference: str, progress: Recorder) -> None:
    # The lease is of the store that knows the time: it would be expired otherwise.
    with store.leasing.hold("test") as lease:
        doubting.unpack.unpack(store.images.resolve(reference), lease, progress=progress)


def test_unpack_on_doubtful_snapshots_of_another_client_makes_them_anew(
    store: Store, doubting: Store, tmp_path: Path
) -> None:
    """What nobody can vouch for may have lost its files; it is removed and unpacked again."""
    image = layered_image(3)
    reference = add_image(store, image)
    with _foreign(store, image.chain_ids[:2]):
        _unpack_doubting(store, doubting, reference, Recorder())
    with _shown(store, image.chain_ids[-1], tmp_path / "m") as root:
        names = sorted(path.name for path in root.iterdir())
    assert names == ["layer-0", "layer-1", "layer-2", "top"]
    store.assert_nothing_is_running()


def test_unpack_on_doubtful_snapshot_in_use_warns_and_goes_on(
    store: Store, doubting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """What somebody has built on is not removed under them; it is made anew once they are gone."""
    image = layered_image(2)
    reference = add_image(store, image)
    progress = Recorder()
    with _foreign(store, [image.chain_ids[0], "somebody-elses"]):
        _unpack_doubting(store, doubting, reference, progress)
        assert "somebody-elses" in store.snapshots()
    assert progress.started == [image.layers[1].digest]
    assert image.chain_ids[0] in caplog.text
    for name in image.chain_ids:
        assert DURABLE not in store.backing.snapshots.stat(name).labels
    store.backing.leases.collect_garbage()
    later = Recorder()
    _unpack_doubting(store, doubting, reference, later)
    assert sorted(later.started) == sorted(layer.digest for layer in image.layers)
    assert store.unpack.is_unpacked(store.images.resolve(reference))


def test_unpack_on_doubtful_snapshot_with_forgotten_child_makes_it_anew(
    store: Store, doubting: Store
) -> None:
    """containerd keeps a collected child on its parent's list and refuses to remove the parent."""
    image = layered_image(2)
    reference = add_image(store, image)
    label = "containerd.io/gc.ref.snapshot.overlayfs"
    config = Digest.parse(image.config_digest)
    with _foreign(store, [image.chain_ids[0]]), store.leasing.hold("test") as short:
        store.backing.snapshots.prepare("child", image.chain_ids[0], short.id, {})
        store.backing.content.update_labels(config, {label: image.chain_ids[0]})
    store.backing.leases.collect_garbage()
    assert store.snapshots() == {image.chain_ids[0]}
    progress = Recorder()
    _unpack_doubting(store, doubting, reference, progress)
    assert sorted(progress.started) == sorted(layer.digest for layer in image.layers)
    assert store.snapshots() == set(image.chain_ids)


def test_unpack_by_threads_at_once_unpacks_each_layer_once(store: Store) -> None:
    """Later callers wait for the first and share its result."""
    image = layered_image(6)
    reference = add_image(store, image)
    progress, start = Recorder(), threading.Barrier(4)

    def work(_: int) -> str:
        start.wait()
        return store.unpack_image(reference, progress=progress)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(4))) == {image.chain_ids[-1]}
    assert sorted(progress.started) == sorted(layer.digest for layer in image.layers)
    store.assert_nothing_is_running()


def test_unpack_by_processes_at_once_all_succeed(store: Store, settings: Settings) -> None:
    """The locks work between processes as well."""
    image = layered_image(6)
    reference = add_image(store, image)
    command = [sys.executable, "-m", "tests.support.volume_worker"]
    arguments = [str(settings.persist), str(settings.socket), settings.namespace]
    workers = [
        subprocess.Popen(
            [*command, *arguments, "unpack", reference], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        outputs = [worker.communicate(timeout=WAIT_SECONDS)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    unpacked = "".join(outputs).split()
    assert sorted(unpacked) == sorted(layer.digest for layer in image.layers)
    store.assert_nothing_is_running()


def test_unpack_cancelled_resumes_where_it_stopped(
    containerd: Containerd, settings: Settings
) -> None:
    """Finished layers stay while the lease lives; the one that was stopped leaves nothing."""
    store = open_store(containerd, settings, workers=1)
    image = layered_image(4)
    reference = add_image(store, image)
    cancel = Cancellation()
    third = image.layers[2].digest

    def stop(item: str) -> None:
        if item == third:
            cancel.set()

    with store.leasing.hold("test") as lease:
        resolved = store.images.resolve(reference)
        with pytest.raises(InterruptedOperationError):
            store.unpack.unpack(resolved, lease, cancel=cancel, progress=Recorder(on_start=stop))
        assert store.snapshots() == set(image.chain_ids[:2])
        progress = Recorder()
        store.unpack.unpack(resolved, lease, progress=progress)
    assert progress.started == [layer.digest for layer in image.layers[2:]]
    store.assert_nothing_is_running()


def test_unpack_interrupted_by_the_keyboard_leaves_nothing(store: Store) -> None:
    """Ctrl-C may come at any moment, also while containerd works."""
    image = layered_image(2)
    reference = add_image(store, image)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.unpack_image(reference, progress=Recorder(on_start=interrupt))
    store.assert_nothing_is_running()


def test_unpack_in_unreachable_store_needs_a_daemon_that_syncs(store: Store) -> None:
    """Nobody could make the layer durable otherwise, so that it is refused with a way out."""
    old = LayerDurability(replace(store.backing, daemon_syncs_layers=False))
    new = LayerDurability(replace(store.backing, daemon_syncs_layers=True))
    assert new.require_way(None) is True
    assert old.require_way(Path("/")) is False
    with pytest.raises(DaemonVersionError, match=r"1\.7\.14"):
        old.require_way(None)
