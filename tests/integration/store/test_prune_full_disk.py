"""Prune when nothing else works any more: on a disk without a free block."""

import os
import secrets
from collections.abc import Callable
from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import CasError
from cas.fsops.trees import free_bytes
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.store.prune.prune import Prune
from cas.store.prune.reserve import RESERVE_BYTES, keep_reserve
from cas.store.sentinel import Sentinel
from tests.support.daemon import connect, private_daemon, settings_for
from tests.support.images import build_image
from tests.support.layers import file
from tests.support.loopfs import LoopFileSystem
from tests.support.volumes import Store, add_image, open_store

pytestmark = pytest.mark.slow

_MIB = 1024 * 1024


def _fill(path: Path) -> None:
    """Take every block that root may take, down to the last."""
    with path.open("wb", buffering=0) as stream:
        for size in (_MIB, 4096, 1):
            with pytest.raises(OSError, match="No space left"):
                _write_on(stream, b"x" * size)


def _write_on(stream: FileIO, data: bytes) -> None:
    while True:
        stream.write(data)
        os.fsync(stream.fileno())


def _open(containerd: Containerd, disk: LoopFileSystem, binary: str) -> Store:
    store = open_store(containerd, settings_for(disk.path, binary))
    Sentinel(store.backing).ensure()
    return store


def test_prune_on_a_full_disk_frees_space_and_restores_the_reserve(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> None:
    """With every block taken a write fails, and prune still gives space back."""
    disk = loop_ext4(256 * _MIB)
    settings = settings_for(disk.path, containerd_binary)
    with private_daemon(settings), closing(connect(settings)) as containerd:
        store = _open(containerd, disk, containerd_binary)
        image = build_image(layers=[[file("f", secrets.token_bytes(12 * _MIB))]])
        add_image(store, image)
        store.unpack_image(image.name)
        assert keep_reserve(settings.layout)
        _fill(disk.path / "filler")
        data = secrets.token_bytes(_MIB)
        with pytest.raises(CasError), store.leasing.hold("test") as lease:
            store.backing.content.put("t", lease.id, data, Digest.of(data), {GC_ROOT: "now"})
        prune = Prune(store.backing)
        result = prune.execute(prune.plan())
        assert result.skipped == ()
        assert result.size >= 24 * _MIB
        assert free_bytes(disk.path) >= 8 * _MIB
        allocated = settings.layout.reserve.stat().st_blocks * 512
        assert allocated >= RESERVE_BYTES


def test_reserve_is_not_made_where_it_would_cause_the_lack(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> None:
    """A small disk is left to its user."""
    disk = loop_ext4(48 * _MIB)
    settings = settings_for(disk.path, containerd_binary)
    with private_daemon(settings), closing(connect(settings)) as containerd:
        _open(containerd, disk, containerd_binary)
        assert not keep_reserve(settings.layout)
        assert not settings.layout.reserve.exists()
