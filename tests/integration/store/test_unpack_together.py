"""Layers unpacked side by side give the same trees as layers unpacked one after the other."""

import hashlib
import logging
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.client import Containerd
from cas.errors import InterruptedOperationError, LayerError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import ChainID, DiffID, Digest
from cas.model.settings import Settings
from cas.store.image.resolution import Layer
from cas.store.layers.staging import Staging, sweep_staging
from tests.support.images import build_image, busybox_layers, layered_image
from tests.support.layers import (
    BuiltLayer,
    Compression,
    Entry,
    character_device,
    directory,
    fifo,
    file,
    hard_link,
    opaque,
    symlink,
    whiteout,
)
from tests.support.volumes import Recorder, Store, add_image, open_store, snapshot_directories

Layers = Sequence[Sequence[Entry]]

_BASE: list[Entry] = [
    directory("etc", mode=0o750, uid=3, gid=4),
    replace(directory("opt", uid=7, gid=8), xattrs={"user.mark": "opt"}),
    directory("tmp", mode=0o1777),
    directory("var/lib", mode=0o700),
    directory("usr/lib", mode=0o2755, gid=50),
    symlink("lib", "usr/lib"),
    symlink("absolute", "/var/lib"),
    symlink("escape", "../../../etc"),
    file("plain", b"a file where others have a directory"),
    file("bin/tool", b"#!", mode=0o4755, uid=5, gid=6),
]

_IMAGES: dict[str, Layers] = {
    "implied": [
        _BASE,
        [file("etc/a"), file("opt/a"), file("tmp/a"), file("var/lib/a"), file("usr/lib/a")],
        [file("etc/b"), file("opt/deep/er/b"), file("tmp/b"), file("var/lib/b"), file("new/b")],
        [file("new/c"), file("opt/deep/c"), directory("etc", mode=0o711)],
        [file("etc/d"), file("opt/deep/er/d")],
    ],
    "set-group-id": [
        [directory("a", mode=0o2755, gid=50), directory("a/b", mode=0o2700, gid=60, uid=1)],
        [file("a/b/c/d/x"), file("a/new/deep/x"), directory("own", mode=0o2755, gid=70)],
        [file("own/new/x"), file("a/b/c/y"), directory("own/b", mode=0o700, gid=9)],
        [directory("own", mode=0o2711, gid=80), file("own/b/x"), file("own/new/z")],
    ],
    "links-in-the-middle": [
        _BASE,
        [file("lib/a"), file("absolute/a"), file("escape/a"), file("plain/a")],
        [file("lib/x/b"), file("absolute/b"), file("escape/b"), file("plain/b")],
    ],
    "whiteouts": [
        [*_BASE, whiteout("bin/never-there")],
        [whiteout("etc"), opaque("opt"), file("opt/kept"), whiteout("tmp"), whiteout("plain")],
        [file("etc/again"), file("opt/again"), file("tmp/again"), whiteout("opt/kept")],
        [whiteout("etc"), directory("etc", mode=0o700, uid=9), file("etc/third")],
    ],
    "kinds": [
        _BASE,
        [
            file("bin/setuid", b"x" * 5000, mode=0o6755, uid=1, gid=2),
            hard_link("bin/setuid-too", "bin/setuid"),
            character_device("dev/null", 1, 3),
            fifo("run/pipe"),
            file("run/xattr", b"y", xattrs={"user.a": "1", "trusted.dropped": "2"}),
            file("run/empty", mode=0),
        ],
        [directory(".", mode=0o700, uid=11), file("run/pipe"), symlink("dev/null", "zero")],
    ],
    "base-alone-hides": [[directory("a"), whiteout("a/b"), opaque("a")], [file("a/c")]],
    "runnable": busybox_layers(),
}


@pytest.fixture
def open_with(containerd: Containerd, settings: Settings) -> Callable[[int], Store]:
    return lambda workers: open_store(containerd, settings, workers=workers)


def _raw_tree(root: Path, now: float) -> dict[str, object]:
    """Everything about a snapshot's files as they lie on disk, marks of the overlay included."""
    tree: dict[str, object] = {}
    inodes: dict[int, list[str]] = {}
    for place, names, files in os.walk(root):
        for name in (*names, *files, "."):
            path = Path(place, name)
            relative = str(path.relative_to(root))
            status = path.lstat()
            tree[relative] = _value(path, status, now)
            if not stat.S_ISDIR(status.st_mode):
                inodes.setdefault(status.st_ino, []).append(relative)
    tree["hard links"] = sorted(sorted(names) for names in inodes.values() if len(names) > 1)
    return tree


def _value(path: Path, status: os.stat_result, now: float) -> tuple[object, ...]:
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    # Directories that are only implied have no time of their own.
    changed = status.st_mtime_ns if status.st_mtime < now - 3600 else "when it was unpacked"
    owner = status.st_uid, status.st_gid
    return stat.filemode(status.st_mode), owner, status.st_rdev, content, xattrs, changed


def _unpacked_trees(store: Store, layers: Layers) -> list[dict[str, object]]:
    """Unpack, read the files of every snapshot, and forget all of it."""
    image = build_image(layers, compression=Compression.ZSTD)
    reference = add_image(store, image)
    store.unpack_image(reference)
    trees = [_raw_tree(_files(store, name), time.time()) for name in image.chain_ids]
    store.assert_nothing_is_running()
    store.backing.images.delete(reference, sync=True)
    assert store.snapshots() == set()
    return trees


def _files(store: Store, snapshot: str) -> Path:
    with store.leasing.hold("test") as lease:
        (mount,) = store.backing.snapshots.view(f"view {snapshot}", snapshot, lease.id, {})
        store.backing.snapshots.remove(f"view {snapshot}")
    lower = mount.option("lowerdir")
    return Path(lower.split(":")[0] if lower else mount.source)


@pytest.mark.parametrize("layers", _IMAGES.values(), ids=_IMAGES)
def test_layers_unpacked_together_equal_layers_unpacked_in_order(
    open_with: Callable[[int], Store], layers: Layers, caplog: pytest.LogCaptureFixture
) -> None:
    """Owners, modes, xattrs, whiteouts, links, devices, contents, of every single snapshot."""
    caplog.set_level(logging.INFO)
    expected = _unpacked_trees(open_with(1), layers)
    assert _unpacked_trees(open_with(4), layers) == expected
    assert "one by one" not in caplog.text


def test_layers_whose_groups_depend_on_the_order_of_entries_are_unpacked_in_order(
    open_with: Callable[[int], Store], caplog: pytest.LogCaptureFixture
) -> None:
    """A directory whose own entry comes after what is in it, over one that passes its group on."""
    caplog.set_level(logging.INFO)
    base = [directory("a", mode=0o2755, gid=50)]
    layers = [base, [file("a/new/file"), directory("a", mode=0o700)]]
    expected = _unpacked_trees(open_with(1), layers)
    assert _unpacked_trees(open_with(4), layers) == expected
    assert "one by one" in caplog.text


def _random_layers(seed: int) -> Layers:
    """Layers that build on, hide and replace each other's directories in every way that is valid.

    Valid for containerd too: it cannot unpack what a layer only implies below a directory that a
    layer underneath has deleted, nor what lies below a link of the same layer.
    """
    source = random.Random(seed)

    def place(depth: int) -> str:
        return "/".join(source.choices(["a", "b", "c"], k=depth))

    def layer(number: int) -> list[Entry]:
        entries: dict[str, Entry] = {}
        through_links = source.random() < 0.5
        for _ in range(6):
            path = place(source.randint(1, 3))
            owner, mode = source.choice([0, 0, 1000]), source.choice([0o755, 0o700, 0o2755])
            entries[path] = directory(path, mode=mode, uid=owner, gid=owner)
            inside = f"{place(source.randint(1, 3))}/file{number}"
            entries[inside] = file(inside, source.randbytes(source.randint(0, 50)))
            link = f"{place(source.randint(1, 2))}/link"
            if through_links:
                entries[f"{link}/x"] = file(f"{link}/x", b"through a link of the layers below")
            else:
                entries[link] = symlink(link, source.choice(["a", "../b", "/c/a", "../../.."]))
        hidden = place(3)
        if number and not any(path.startswith(hidden) for path in entries):
            entries[hidden] = whiteout(hidden)
        return list(entries.values())

    return [layer(number) for number in range(5)]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.once) for seed in range(2, 6))]
)
def test_random_layers_unpacked_together_equal_those_in_order(
    open_with: Callable[[int], Store], seed: int
) -> None:
    """What nobody thought of."""
    layers = _random_layers(seed)
    expected = _unpacked_trees(open_with(1), layers)
    assert _unpacked_trees(open_with(4), layers) == expected


def test_layers_unpacked_together_on_standing_ones_equal_those_in_order(
    open_with: Callable[[int], Store],
) -> None:
    """The parents of the first missing layer are asked for its implied directories as well."""
    layers = _IMAGES["implied"]
    expected = _unpacked_trees(open_with(1), layers)
    store = open_with(4)
    lower = build_image(layers[:2], name="example.com/lower:1", compression=Compression.ZSTD)
    store.unpack_image(add_image(store, lower))
    whole = build_image(layers, compression=Compression.ZSTD)
    store.unpack_image(add_image(store, whole))
    trees = [_raw_tree(_files(store, name), time.time()) for name in whole.chain_ids]
    assert trees == expected


def test_unpack_together_with_bad_layer_reports_it_and_leaves_nothing(
    open_with: Callable[[int], Store], settings: Settings
) -> None:
    """The others are stopped; the error is that of the bad layer, and no file of any stays."""
    store, before = open_with(4), snapshot_directories(settings)
    good = layered_image(4).layers
    bad = BuiltLayer(b"no tar", b"this is no tar" * 1000, Compression.NONE)
    image = build_image([*good[:2], bad, *good[2:]])
    reference = add_image(store, image)
    with pytest.raises(LayerError, match=bad.digest):
        store.unpack_image(reference)
    store.assert_nothing_is_running()
    store.backing.leases.collect_garbage()
    assert store.snapshots() == set()
    assert snapshot_directories(settings) <= before


def test_unpack_together_cancelled_stops_all_layers(open_with: Callable[[int], Store]) -> None:
    """The caller's wish reaches every thread, and nothing is left of any."""
    store = open_with(4)
    image = build_image([[file(f"{number}", os.urandom(4 << 20))] for number in range(6)])
    cancel = Cancellation()
    with pytest.raises(InterruptedOperationError):
        store.unpack_image(
            add_image(store, image),
            cancel=cancel,
            progress=Recorder(on_start=lambda _: cancel.set()),
        )
    store.assert_nothing_is_running()


def test_staging_of_dead_session_is_swept_and_living_one_stays(tmp_path: Path) -> None:
    """The lock of a session tells whether it lives."""
    layer = _any_layer()
    with Staging(tmp_path / "unpack") as living:
        kept = living.add(layer, 0, is_base=True).files
        dead = tmp_path / "unpack" / "0123456789abcdef"
        dead.mkdir()
        (dead / "file").touch()
        dead.with_name(f"{dead.name}.lock").touch()
        assert sweep_staging(tmp_path / "unpack") == [dead]
        assert kept.is_dir()
        assert sweep_staging(tmp_path / "unpack") == []
    assert list((tmp_path / "unpack").iterdir()) == []
    assert sweep_staging(tmp_path / "absent") == []


def _any_layer() -> Layer:
    blob = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest("a" * 64), 1)
    return Layer(blob, DiffID("a" * 64), ChainID("a" * 64))


@pytest.mark.parametrize(("workers", "together"), [(1, False), (3, True)])
def test_workers_of_the_settings_are_the_layers_at_once(
    workers: int, together: bool, containerd: Containerd, settings: Settings
) -> None:
    """A device that is told to do one thing at a time unpacks one layer at a time."""
    threads: set[str] = set()
    recorder = Recorder(on_start=lambda _: threads.add(threading.current_thread().name))
    reference = add_image(open_store(containerd, settings), build_image(busybox_layers()))

    with Case.open(replace(settings, workers=workers)) as case, case.leasing.hold("test") as lease:
        case.unpack.unpack(case.images.resolve(reference), lease, progress=recorder)

    assert len(recorder.started) == len(busybox_layers())
    assert (threads != {threading.current_thread().name}) is together
