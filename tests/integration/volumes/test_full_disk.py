"""Unpacking and preparing on a disk that is, or becomes, full; and afterwards, with room again."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd

from cas.errors import NoSpaceError
from cas.fsops.trees import free_bytes
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
