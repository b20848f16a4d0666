"""A volume in the place of its earlier generations."""

from dataclasses import replace

import pytest

from cas.errors import (
    ContentMissingError,
    ImageNotFoundError,
    InUseError,
    VolumeConflictError,
)
from cas.model.volume_name import VolumeName
from cas.volumes.volumes import VolumeState
from tests.support.images import BuiltImage, layered_image
from tests.support.volumes import Store, add_image, volume_name


@pytest.fixture
def image(store: Store) -> BuiltImage:
    built = layered_image(2)
    add_image(store, built)
    return built


def _next(name: VolumeName) -> VolumeName:
    return replace(name, generation=name.generation + 1)


def _names(store: Store) -> list[VolumeName]:
    return [status.name for status in store.volumes.iter_volumes()]


def test_next_generation_stands_beside_the_one_before(store: Store, image: BuiltImage) -> None:
    """Both with data of their own, until the caller removes one."""
    old = volume_name(9)
    new = _next(old)
    for name in (old, new):
        root = store.volumes.prepare(name, image.name, activate=True).rootfs
        (root / "data").write_text(str(name))
    assert _names(store) == [old, new]
    store.volumes.remove(old)
    assert (store.volumes.get(new).rootfs / "data").read_text() == str(new)


def test_replacement_removes_every_earlier_generation(store: Store, image: BuiltImage) -> None:
    """With its snapshots; other volumes and later generations stay, repetition changes nothing."""
    old = volume_name(4)
    store.volumes.prepare(old, image.name, activate=True)
    store.volume_snapshots.create([old], "one", quiesced=True)
    store.volumes.prepare(_next(old), image.name)
    new, later, other = (replace(old, generation=6), replace(old, generation=7), volume_name())
    for name in (later, other):
        store.volumes.prepare(name, image.name)
    for _ in range(2):
        status = store.volumes.prepare(new, image.name, activate=True, replace=True)
        assert status.state is VolumeState.ACTIVE
        assert sorted(_names(store)) == sorted([new, later, other])
    assert not [key for key in store.snapshots() if key.startswith(f"{old}")]


def test_replacement_that_cannot_be_made_leaves_the_old(store: Store, image: BuiltImage) -> None:
    """Whatever is wrong with the new one, or with stopping the old."""
    old = volume_name()
    root = store.volumes.prepare(old, image.name, activate=True).rootfs
    (root / "data").write_text("precious")
    broken = layered_image(1, name="example.com/test/broken:1", seed="broken")
    add_image(store, broken, leave_out=(broken.layers[0].digest,))
    with pytest.raises(ImageNotFoundError):
        store.volumes.prepare(_next(old), "example.com/absent:1", replace=True)
    with pytest.raises(ContentMissingError):
        store.volumes.prepare(_next(old), broken.name, replace=True)
    with (root / "data").open(), pytest.raises(InUseError):
        store.volumes.prepare(_next(old), image.name, replace=True)
    store.settings.layout.volume(_next(old)).symlink_to("elsewhere")
    with pytest.raises(VolumeConflictError):
        store.volumes.prepare(_next(old), image.name, replace=True)
    assert _names(store) == [old]
    assert (root / "data").read_text() == "precious"
