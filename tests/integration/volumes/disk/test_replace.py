"""A disk in the place of the earlier generations of its volume."""

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cas.errors import (
    CasError,
    DiskFormatError,
    ImageNotFoundError,
    IntegrityError,
    InUseError,
    NoSpaceError,
    VolumeConflictError,
    VolumeSizeError,
)
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.volume_name import VolumeName
from tests.support.daemon import connect, private_daemon, settings_for, unmount_below
from tests.support.disks import DISK_LAYER, MIB, add_disk
from tests.support.images import busybox_image
from tests.support.loopfs import LoopFileSystem
from tests.support.volumes import Store, add_image, open_store, volume_name

_BLANK = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2)
_MOST = 12 * MIB
"""Of which there is room for one, and not for two."""


def _next(name: VolumeName, steps: int = 1) -> VolumeName:
    return replace(name, generation=name.generation + steps)


def _names(store: Store) -> list[VolumeName]:
    return [status.name for status in store.volumes.iter_volumes()]


def test_replacement_removes_every_earlier_generation(store: Store) -> None:
    """Whatever their kind, snapshots too; later ones stay, and repetition changes nothing."""
    image = busybox_image()
    add_image(store, image)
    old, disk = volume_name(), DiskRequest(add_disk(store, b"new" * 1000))
    store.volumes.prepare(old, image.name, activate=True)
    store.volumes.prepare_disk(_next(old), _BLANK)
    store.volume_snapshots.create([_next(old)], "one")
    new, later = _next(old, 2), _next(old, 3)
    store.volumes.prepare_disk(later, _BLANK)
    for _ in range(2):
        path = store.volumes.prepare_disk(new, disk, replace=True).rootfs
        assert path.read_bytes() == b"new" * 1000
        assert _names(store) == [new, later]
    store.volumes.prepare_disk(_next(old), _BLANK)
    store.volumes.prepare_disk(new, disk, replace=True)
    assert _names(store) == [new, later]
    store.assert_nothing_is_running()


@pytest.mark.parametrize(
    ("request_for", "error"),
    [
        (lambda _: DiskRequest("example.com/absent:1"), ImageNotFoundError),
        (lambda store: DiskRequest(_claimed(store, "qcow2")), DiskFormatError),
        (lambda store: DiskRequest(add_disk(store, bytes(MIB)), size=512), VolumeSizeError),
        (lambda _: DiskRequest(None, size=2**60), CasError),
    ],
)
def test_replacement_that_cannot_be_made_leaves_the_old(
    store: Store, request_for: Callable[[Store], DiskRequest], error: type[CasError]
) -> None:
    """Whatever is wrong with the new one."""
    old = volume_name()
    path = store.volumes.prepare_disk(old, DiskRequest(add_disk(store, b"old" * 1000))).rootfs
    with pytest.raises(error):
        store.volumes.prepare_disk(_next(old), request_for(store), replace=True)
    assert path.read_bytes() == b"old" * 1000
    assert _names(store) == [old]
    store.assert_nothing_is_running()


def _claimed(store: Store, disk_format: str) -> str:
    return add_disk(store, b"raw" * 1000, media_type=f"{DISK_LAYER}+{disk_format}")


def test_replacement_of_a_disk_in_use_leaves_it(store: Store) -> None:
    """And nothing of the new one."""
    old = volume_name()
    path = store.volumes.prepare_disk(old, _BLANK).rootfs
    with path.open("rb"), pytest.raises(InUseError):
        store.volumes.prepare_disk(_next(old), _BLANK, replace=True)
    (store.settings.layout.volumes / str(_next(old))).symlink_to("elsewhere")
    with pytest.raises(VolumeConflictError):
        store.volumes.prepare_disk(_next(old), _BLANK, replace=True)
    (store.settings.layout.volumes / str(_next(old))).unlink()
    assert _names(store) == [old]
    store.assert_nothing_is_running()


def test_replacement_finishes_interrupted_removals_of_earlier_generations(store: Store) -> None:
    """Of a container and a disk, of which a kill left what was renamed aside, and their room."""
    image = busybox_image()
    add_image(store, image)
    container, layout = volume_name(), store.settings.layout
    disk, new = _next(container), _next(container, 2)
    root = store.volumes.prepare(container, image.name).rootfs
    root.parent.rename(layout.volume_removing(container))
    path = store.volumes.prepare_disk(disk, _BLANK).rootfs
    path.rename(layout.disk(disk, clear=False).removing)
    store.volumes.prepare_disk(new, _BLANK, replace=True)
    assert _names(store) == [new]
    assert not [key for key in store.snapshots() if key.startswith(str(container.uuid))]
    store.assert_nothing_is_running()


@pytest.fixture
def small(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> Iterator[tuple[Store, LoopFileSystem]]:
    """A store that has room for a disk of 12 MiB and its images, and not for another disk."""
    loop = loop_ext4(128 * MIB)
    settings = settings_for(loop.path, containerd_binary)
    limits = replace(settings.limits, min_free_bytes=0, thin_disks=True)
    settings = replace(settings, limits=limits)
    with private_daemon(settings), connect(settings) as containerd:
        yield open_store(containerd, settings), loop
        unmount_below(settings.persist)


@pytest.mark.parametrize("packed", [False, True])
def test_disk_that_fits_only_in_the_place_of_the_old_one_takes_it(
    small: tuple[Store, LoopFileSystem], packed: bool
) -> None:
    """Once it is proven that it can be made: for a damaged image the old one is not given up."""
    store, loop = small
    data = os.urandom(_MOST)
    old = volume_name()
    new = _next(old)
    path = store.volumes.prepare_disk(old, DiskRequest(add_disk(store, data))).rootfs
    fresh = os.urandom(64) + data[64:]
    source = add_disk(store, gzip.compress(fresh, 1) if packed else fresh)
    damaged = add_disk(store, gzip.compress(fresh[:-1], 1) if packed else fresh[:-1])
    _damage(store, damaged)
    loop.fill(leave=4 * MIB)  # of which all is kept for root
    with pytest.raises(NoSpaceError, match="full to its last block"):
        store.volumes.prepare_disk(new, DiskRequest(source), replace=True)
    loop.make_room()
    loop.fill(leave=12 * MIB)
    with pytest.raises(NoSpaceError):
        store.volumes.prepare_disk(new, DiskRequest(source))
    with pytest.raises(IntegrityError):
        store.volumes.prepare_disk(new, DiskRequest(damaged), replace=True)
    strict = replace(store.settings.limits, thin_disks=False)
    with connect(store.settings) as containerd:
        volumes = open_store(containerd, replace(store.settings, limits=strict)).volumes
        with pytest.raises(NoSpaceError, match="they stay"):
            volumes.prepare_disk(new, DiskRequest(source, size=4 * _MOST), replace=True)
    assert path.read_bytes() == data
    made = store.volumes.prepare_disk(new, DiskRequest(source), replace=True).rootfs
    assert made.read_bytes() == fresh
    assert _names(store) == [new]
    store.assert_nothing_is_running()


def _damage(store: Store, reference: str) -> None:
    """Change a byte in the middle of an image's disk, where only its digest tells."""
    digest = store.images.resolve_disk(reference).artifact.layers[0].digest
    directory = store.backing.blobs_directory
    assert directory is not None
    blob = directory / digest.hex
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(_MOST // 2)
        byte = file.read(1)
        file.seek(_MOST // 2)
        file.write(bytes([byte[0] ^ 1]))
