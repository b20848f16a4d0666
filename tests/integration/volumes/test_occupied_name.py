"""A volume's name that something else than a container volume has."""

import pytest

from cas.errors import VolumeConflictError
from tests.support.images import BuiltImage
from tests.support.volumes import Store, volume_name


def test_prepare_under_the_name_of_a_disk_is_refused(store: Store, image: BuiltImage) -> None:
    """A disk volume is a file of the same name: it stays as it is, and nothing is left behind."""
    name = volume_name()
    disk = store.settings.layout.volume(name)
    disk.write_bytes(b"disk")
    before = store.snapshots()
    with pytest.raises(VolumeConflictError, match="not a container volume"):
        store.volumes.prepare(name, image.name)
    assert disk.read_bytes() == b"disk"
    assert store.snapshots() == before
    store.assert_nothing_is_running()
    disk.unlink()


def test_prepare_through_a_symbolic_link_is_refused(store: Store, image: BuiltImage) -> None:
    """A link with a volume's name is not followed, also when it leads to a volume."""
    real, name = volume_name(), volume_name()
    store.volumes.prepare(real, image.name)
    link = store.settings.layout.volume(name)
    link.symlink_to(store.settings.layout.volume(real))
    before = store.snapshots()
    with pytest.raises(VolumeConflictError, match="not a container volume"):
        store.volumes.prepare(name, image.name)
    assert store.snapshots() == before
    link.unlink()


def test_recovery_removes_the_snapshot_whose_name_a_disk_has(
    store: Store, image: BuiltImage
) -> None:
    """Only a directory is a container volume; a file keeps no snapshot alive."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    directory = store.settings.layout.volume(name)
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.write_bytes(b"disk")
    store.volumes.recover()
    assert str(name) not in store.snapshots()
    assert directory.read_bytes() == b"disk"
    directory.unlink()
    aside.joinpath("rootfs").rmdir()
    for file in aside.iterdir():
        file.unlink()
    aside.rmdir()
