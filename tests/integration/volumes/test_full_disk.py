"""Unpacking and preparing on a disk that is, or becomes, full; and afterwards, with room again."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd

from cas.errors import CorruptBlobError, NoSpaceError
from cas.fsops.trees import free_bytes
from cas.store.prune.reserve import keep_reserve
from cas.volumes.volumes import VolumeState
from tests.support.daemon import connect, private_daemon, settings_for, unmount_below
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.layers import BuiltLayer, Compression, file, layer_tar
from tests.support.loopfs import LoopFileSystem
from tests.support.volumes import (
    Store,
    add_image,
    open_store,
    snapshot_directories,
    volume_name,
)

_MIB = 1024 * 1024


@pytest.fixture
def store(loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str) -> Iterator[Store]:
    """A store on a disk of 128 MiB, of which work leaves 4."""
    settings = settings_for(loop_ext4(128 * _MIB).path, containerd_binary)
    limits = replace(settings.limits, min_free_bytes=4 * _MIB)
    settings = replace(settings, limits=limits, namespace="t")
    with private_daemon(settings), connect(settings) as containerd:
        yield open_store(containerd, settings)
        unmount_below(settings.persist)


def _large_image(size: int) -> BuiltImage:
    """An image whose layer does not tell how large it becomes."""
    tar = layer_tar([file("zeros", bytes(size))])
    compressor = zstd.ZstdCompressor()
    blob = compressor.compress(tar) + compressor.flush()
    return build_image([BuiltLayer(tar, blob, Compression.ZSTD)], name="example.com/large:1")


def _fill(store: Store, leave: int) -> Path:
    """Take all room but ``leave`` bytes."""
    hog = store.settings.persist / "hog"
    with hog.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(store.settings.persist))
        with suppress(OSError):
            while True:  # what the file system kept for its own bookkeeping
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, 4096)
        file.truncate(os.fstat(file.fileno()).st_size - leave)
    return hog


def test_unpack_that_fills_the_disk_stops_and_gives_everything_back(store: Store) -> None:
    """The layer turns out larger than the disk; nothing of it stays, and work goes on."""
    before = snapshot_directories(store.settings)
    reference = add_image(store, _large_image(200 * _MIB))
    free = free_bytes(store.settings.persist)
    with pytest.raises(NoSpaceError):
        store.volumes.prepare(volume_name(), reference)
    assert snapshot_directories(store.settings) <= before
    assert free_bytes(store.settings.persist) > free - 4 * _MIB
    assert store.volumes.recover() == []
    other = add_image(store, layered_image(2))
    assert store.volumes.prepare(volume_name(), other, activate=True).state is VolumeState.ACTIVE


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_volume_whose_layers_do_not_fit_is_refused_before_they_are_unpacked(
    store: Store, compression: Compression
) -> None:
    """Where a layer tells its size, the message says how much is missing."""
    layers = [[file("data", os.urandom(12 * _MIB))]]
    image = build_image(layers, name="example.com/known:1", compression=compression)
    reference = add_image(store, image)
    hog, name = _fill(store, leave=10 * _MIB), volume_name()
    free = free_bytes(store.settings.persist)

    with pytest.raises(NoSpaceError, match="unpacking layer") as caught:
        store.volumes.prepare(name, reference)

    needed, missing = (int(str(caught.value.details[key])) for key in ("needed", "missing"))
    assert needed > 12 * _MIB
    assert abs(missing - (needed + store.settings.limits.min_free_bytes - free)) < _MIB
    assert free_bytes(store.settings.persist) > free - _MIB
    store.assert_nothing_is_running()
    hog.unlink()
    assert store.volumes.prepare(name, reference).state is VolumeState.INACTIVE


def test_unpack_works_once_there_is_room(store: Store) -> None:
    """The same call that failed for want of room succeeds afterwards."""
    reference = add_image(store, _large_image(40 * _MIB))
    hog, name = _fill(store, leave=20 * _MIB), volume_name()
    with pytest.raises(NoSpaceError):
        store.volumes.prepare(name, reference)
    hog.unlink()
    root = store.volumes.prepare(name, reference, activate=True).rootfs
    assert (root / "zeros").stat().st_size == 40 * _MIB


@pytest.mark.parametrize("left", [0, 16 * 1024, 64 * 1024])
def test_prepare_on_full_disk_fails_and_works_once_there_is_room(store: Store, left: int) -> None:
    """Wherever it fails, the volume is not there; afterwards it is, and nothing else."""
    image = layered_image(2)
    reference, name = add_image(store, image), volume_name()
    store.unpack_image(reference)
    hog = _fill(store, leave=left)
    try:
        store.volumes.prepare(name, reference)
    except NoSpaceError:
        assert list(store.volumes.iter_volumes()) == []
    else:
        assert left, "there was no room for a directory"
    hog.unlink()
    store.volumes.recover()
    root = store.volumes.prepare(name, reference, activate=True).rootfs
    assert (root / "top").read_text() == "1\n"
    assert store.snapshots() == {str(name), *image.chain_ids}


def test_replacement_takes_the_room_of_the_old_volume(store: Store) -> None:
    """There is no room for both; the old one goes when the new image is proven whole."""
    old = volume_name()
    root = store.volumes.prepare(old, add_image(store, layered_image(1)), activate=True).rootfs
    layer = [file("random", os.urandom(12 * _MIB))]
    image = build_image([layer], name="example.com/new:1", compression=Compression.NONE)
    new, reference = replace(old, generation=1), add_image(store, image)
    size = free_bytes(store.settings.persist) - 13 * _MIB
    (root / "data").write_bytes(bytes(size))
    with pytest.raises(NoSpaceError):
        store.volumes.prepare(new, reference)
    blob = store.settings.layout.case / (
        f"io.containerd.content.v1.content/blobs/sha256/{image.layers[0].digest[7:]}"
    )
    with blob.open("r+b") as damaged:
        damaged.seek(-1, os.SEEK_END)
        last = damaged.read(1)
        damaged.seek(-1, os.SEEK_END)
        damaged.write(bytes([last[0] ^ 1]))
    with pytest.raises(CorruptBlobError):
        store.volumes.prepare(new, reference, replace=True)
    assert (root / "data").stat().st_size == size
    with blob.open("r+b") as damaged:
        damaged.seek(-1, os.SEEK_END)
        damaged.write(last)
    root = store.volumes.prepare(new, reference, activate=True, replace=True).rootfs
    assert (root / "random").stat().st_size == 12 * _MIB
    assert [status.name for status in store.volumes.iter_volumes()] == [new]


def _free_with_reserve(store: Store) -> int:
    reserve = store.settings.layout.reserve
    kept = reserve.stat().st_blocks * 512 if reserve.exists() else 0
    return free_bytes(store.settings.persist) + kept


@pytest.mark.parametrize("left", [0, 16 * 1024, 64 * 1024])
def test_snapshot_on_full_disk_fails_or_is_whole(store: Store, left: int) -> None:
    """Content and older snapshots are there either way, and removal gives room on a full disk."""
    name = volume_name()
    root = store.volumes.prepare(name, add_image(store, layered_image(1)), activate=True).rootfs
    (root / "data").write_bytes(bytes(20 * _MIB))
    store.volume_snapshots.create([name], "first", quiesced=True)
    (root / "data").write_bytes(b"now")
    store.settings.layout.reserve.parent.mkdir(exist_ok=True)
    assert keep_reserve(store.settings.layout)
    hog = _fill(store, leave=left)
    taken = ["first"]
    try:
        store.volume_snapshots.create([name], "second", quiesced=True)
    except NoSpaceError:
        assert left < 64 * 1024, "there was room for a record"
    else:
        taken.append("second")
    store.volumes.activate(name)
    assert [each.name for each in store.volume_snapshots.iter_snapshots(name)] == taken
    assert (root / "data").read_bytes() == b"now"
    before = _free_with_reserve(store)
    assert store.volume_snapshots.remove(name, "first", quiesced=True)
    store.backing.leases.collect_garbage()
    assert _free_with_reserve(store) > before + 8 * _MIB  # and what only root may use
    assert (root / "data").read_bytes() == b"now"
    hog.unlink()
    assert store.volumes.recover() == []
