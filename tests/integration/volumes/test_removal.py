"""Volumes are removed, with their data and nothing else."""

import subprocess
from pathlib import Path

import pytest

from cas.errors import InUseError, VolumeNotFoundError
from cas.fsops.mounts import mounts_below
from cas.volumes.volumes import VolumeState
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import BuiltImage
from tests.support.volumes import Store, snapshot_directories, volume_name


def test_remove_takes_directory_snapshot_and_files(store: Store, image: BuiltImage) -> None:
    """The image's layers stay, and so does every other volume."""
    store.unpack_image(image.name)
    before = snapshot_directories(store.settings)
    name, other = volume_name(1), volume_name(2)
    store.volumes.prepare(other, image.name)
    kept = snapshot_directories(store.settings) - before
    store.volumes.prepare(name, image.name, activate=True)
    assert store.volumes.remove(name) is True
    store.backing.leases.collect_garbage()
    assert snapshot_directories(store.settings) == before | kept
    assert [status.name for status in store.volumes.iter_volumes()] == [other]
    assert store.snapshots() == {str(other), *image.chain_ids}
    store.assert_nothing_is_running()


def test_remove_of_absent_volume_says_so(store: Store, image: BuiltImage) -> None:
    """Twice is as good as once, and the answer tells them apart."""
    name = volume_name()
    assert store.volumes.remove(name) is False
    store.volumes.prepare(name, image.name)
    assert store.volumes.remove(name) is True
    assert store.volumes.remove(name) is False
    with pytest.raises(VolumeNotFoundError):
        store.volumes.get(name)


def test_remove_of_busy_volume_is_refused_unless_forced(store: Store, image: BuiltImage) -> None:
    """Refused, it stays as it is; forced, its user keeps what he has open."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    (root / "data").write_text("x")
    user = subprocess.Popen(
        ["sh", "-c", "exec 3< data; echo; read line; cat <&3"],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    user.stdout.readline()
    with pytest.raises(InUseError, match=str(user.pid)):
        store.volumes.remove(name)
    assert store.volumes.get(name).state is VolumeState.ACTIVE
    assert (root / "data").read_text() == "x"
    assert store.volumes.remove(name, force=True) is True
    assert not store.settings.layout.volume(name).exists()
    assert mounts_below(store.settings.layout.volumes) == []
    output, _ = user.communicate("go\n", timeout=WAIT_SECONDS)
    assert output == "x"


def test_remove_with_mounts_inside_is_refused_and_empties_nothing(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    """Whatever is mounted in the volume is not the volume's to delete, forced or not."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    (tmp_path / "precious").write_text("x")
    inside, beside = root / "opt", root.parent / "extra"
    beside.mkdir()
    for target in (inside, beside):
        subprocess.run(["mount", "--bind", tmp_path, target], check=True)
    with pytest.raises(InUseError, match=str(inside)):
        store.volumes.remove(name)
    subprocess.run(["umount", inside], check=True)
    with pytest.raises(InUseError, match=str(beside)):
        store.volumes.remove(name)
    subprocess.run(["mount", "--bind", tmp_path, inside], check=False)
    assert store.volumes.remove(name, force=True) is True
    assert (tmp_path / "precious").read_text() == "x"
    assert mounts_below(store.settings.layout.volumes) == []


@pytest.mark.parametrize("damage", ["record", "garbage", "snapshot", "rootfs"])
def test_remove_of_corrupt_volume_works(store: Store, image: BuiltImage, damage: str) -> None:
    """What cannot be used can still be removed, without force and without leftovers."""
    name = volume_name()
    directory = store.settings.layout.volume(name)
    store.volumes.prepare(name, image.name)
    match damage:
        case "record":
            (directory / "volume.json").unlink()
        case "garbage":
            (directory / "volume.json").write_bytes(b"\xff" * 100_000)
        case "snapshot":
            store.backing.snapshots.remove(str(name))
        case "rootfs":
            (directory / "rootfs").rmdir()
    assert store.volumes.get(name).state is VolumeState.CORRUPT
    assert store.volumes.remove(name) is True
    assert str(name) not in store.snapshots()
    store.assert_nothing_is_running()


def test_remove_of_converted_volume_takes_its_old_snapshot(store: Store, image: BuiltImage) -> None:
    """The record is damaged, but the converter's file still names the key."""
    name = volume_name()
    directory = store.settings.layout.volume(name)
    store.volumes.prepare(name, image.name)
    store.backing.snapshots.remove(str(name))
    with store.leasing.hold("test") as lease:
        root = {"containerd.io/gc.root": "test"}
        store.backing.snapshots.prepare("old-key", image.chain_ids[-1], lease.id, root)
    (directory / "volume.json").unlink()
    (directory / "snapshotid.txt").write_text("old-key")
    assert store.volumes.remove(name) is True
    assert store.snapshots() == set(image.chain_ids)


def test_remove_finishes_an_interrupted_removal(store: Store, image: BuiltImage) -> None:
    """The volume does not exist any more, but something of it did until now."""
    name, layout = volume_name(), store.settings.layout
    store.volumes.prepare(name, image.name)
    layout.volume(name).rename(layout.volume_removing(name))
    assert store.volumes.remove(name) is True
    assert store.snapshots() == set(image.chain_ids)
    assert store.volumes.remove(name) is False
    store.assert_nothing_is_running()


def test_remove_of_volume_whose_record_names_another_snapshot_leaves_that(
    store: Store, image: BuiltImage
) -> None:
    """A damaged record cannot take somebody else's data along."""
    damaged, other = volume_name(1), volume_name(2)
    root = store.volumes.prepare(other, image.name, activate=True).rootfs
    (root / "data").write_text("kept")
    store.volumes.prepare(damaged, image.name)
    record = store.settings.layout.volume_record(damaged)
    text = record.read_text()
    changed = text.replace(f'"snapshot_key": "{damaged}"', f'"snapshot_key": "{other}"')
    assert changed != text
    record.write_text(changed)

    assert store.volumes.remove(damaged, force=True) is True

    assert str(other) in store.snapshots()
    assert (root / "data").read_text() == "kept"
