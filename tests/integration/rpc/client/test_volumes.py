"""Volumes through the client."""

from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import (
    BlobNotFoundError,
    CorruptVolumeError,
    ImageNotFoundError,
    InUseError,
    VolumeConflictError,
    VolumeNotFoundError,
    VolumeSnapshotNotFoundError,
)
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.rpc.client import Client
from cas.volumes.status import VolumeState
from tests.support.disks import MIB
from tests.support.images import BuiltImage, layered_image
from tests.support.machines import lose_state, machine_starting_before
from tests.support.volumes import volume_name


@pytest.fixture
def image(client: Client, allowed: Path) -> BuiltImage:
    """An image in the store."""
    built = layered_image(2)
    client.images.import_archive(built.write_oci_tar(allowed / "image.tar"))
    return built


def test_life_of_a_volume(client: Client, case: Case, image: BuiltImage) -> None:
    """Data written into it is there until it is removed."""
    name = volume_name()
    status = client.volumes.prepare(name, image.name, activate=True)
    assert status == case.volumes.get(name)
    (status.rootfs / "note").write_text("kept")
    assert client.volumes.usage(name) == case.volumes.usage(name)
    assert client.volumes.deactivate(name).state is VolumeState.INACTIVE
    assert not (status.rootfs / "note").exists()
    assert client.volumes.activate_all() == [(name, None)]
    assert client.volumes.prepare(name, image.name).state is VolumeState.ACTIVE
    assert (status.rootfs / "note").read_text() == "kept"
    assert client.volumes.deactivate_all() == [(name, None)]
    assert client.volumes.activate(name).state is VolumeState.ACTIVE
    assert client.volumes.remove(name)
    assert not client.volumes.remove(name)
    assert list(client.volumes.iter_volumes()) == []


def test_read_only_volume_is_prepared_so(client: Client, image: BuiltImage) -> None:
    """Its record says it."""
    record = client.volumes.prepare(volume_name(), image.name, read_only=True).record

    assert record is not None
    assert record.read_only


def test_life_of_a_disk(client: Client, case: Case) -> None:
    """Blank and qcow2, so that qemu-img works for the service; a wrong one ends with its error."""
    name = volume_name()
    request = DiskRequest(None, size=1024 * 1024, format=DiskFormat.QCOW2)

    status = client.volumes.prepare_disk(name, request)

    assert status == case.volumes.get(name)
    assert status.disk is not None
    assert status.disk.virtual_size == 1024 * 1024
    assert client.volumes.prepare_disk(name, request) == status
    with pytest.raises(VolumeConflictError, match="with size"):
        client.volumes.prepare_disk(name, DiskRequest(None, size=5))
    with pytest.raises(BlobNotFoundError):
        client.volumes.prepare_disk(volume_name(), DiskRequest(f"sha256:{'0' * 64}"))
    assert client.volumes.activate(name).state is VolumeState.INACTIVE
    assert client.volumes.usage(name) == case.volumes.usage(name)
    assert client.volumes.remove(name)
    assert list(client.volumes.iter_volumes()) == []


def test_volumes_of_older_software_are_listed_apart(client: Client, case: Case) -> None:
    """They are none of ours, so nothing is done with them."""
    old = case.settings.layout.volumes / f"{volume_name()}.qcow2"
    old.write_bytes(b"old")

    assert list(client.volumes.iter_volumes()) == []
    assert list(client.volumes.iter_foreign()) == list(case.volumes.iter_foreign())
    assert [entry.path for entry in client.volumes.iter_foreign()] == [old]
    assert client.volumes.activate_all() == []
    case.recover()
    assert old.read_bytes() == b"old"


def test_damaged_volume_is_listed_and_its_error_told(
    client: Client, case: Case, image: BuiltImage
) -> None:
    """One that fails does not keep the others back."""
    sound, damaged = sorted([volume_name(), volume_name()], key=str)
    for name in (sound, damaged):
        client.volumes.prepare(name, image.name)
    case.settings.layout.volume_record(damaged).write_text("{")

    listed = {status.name: status for status in client.volumes.iter_volumes()}
    direct = {status.name: status for status in case.volumes.iter_volumes()}
    outcomes = dict(client.volumes.activate_all())

    assert listed == direct
    assert listed[damaged].state is VolumeState.CORRUPT
    assert outcomes[sound] is None
    assert isinstance(outcomes[damaged], CorruptVolumeError)
    for name in (sound, damaged):
        assert client.volumes.remove(name, force=True)


def test_errors_are_the_librarys(client: Client, image: BuiltImage, allowed: Path) -> None:
    """Not found, conflict."""
    name = volume_name()
    for ask in (
        client.volumes.get,
        client.volumes.activate,
        client.volumes.deactivate,
        client.volumes.usage,
    ):
        with pytest.raises(VolumeNotFoundError) as caught:
            ask(name)
        assert caught.value.details["name"] == str(name)
    with pytest.raises(ImageNotFoundError):
        client.volumes.prepare(name, "example.com/none:1")
    other = layered_image(1, seed="other").named("example.com/other:1")
    client.images.import_archive(other.write_oci_tar(allowed / "other.tar"))
    client.volumes.prepare(name, image.name)
    with pytest.raises(VolumeConflictError, match="generation"):
        client.volumes.prepare(name, other.name)
    client.volumes.remove(name)


def test_life_of_snapshots_of_volumes(client: Client, case: Case, image: BuiltImage) -> None:
    """The client gives what the store gives, and tells its errors."""
    names = [volume_name(), volume_name()]
    roots = [client.volumes.prepare(name, image.name, activate=True).rootfs for name in names]
    with pytest.raises(InUseError, match="quiesced"):
        client.volume_snapshots.create(names, "one")
    taken = client.volume_snapshots.create(names, "one", quiesced=True)
    assert [each.volume for each in taken] == names
    (roots[0] / "note").write_text("later")
    assert client.volume_snapshots.roll_back(names, "one", quiesced=True) == taken
    assert not (roots[0] / "note").exists()
    for name in names:
        listed = list(client.volume_snapshots.iter_snapshots(name))
        assert listed == list(case.volume_snapshots.iter_snapshots(name))
        assert client.volumes.get(name) == case.volumes.get(name)
        assert client.volumes.usage(name) == case.volumes.usage(name)
    with pytest.raises(VolumeSnapshotNotFoundError):
        client.volume_snapshots.roll_back(names, "two", quiesced=True)
    assert client.volume_snapshots.remove(names[0], "one", quiesced=True)
    assert not client.volume_snapshots.remove(names[0], "one", quiesced=True)
    for name in names:
        assert client.volumes.remove(name)


def test_error_of_a_rollback_names_the_disk_that_a_machine_keeps(
    client: Client, case: Case
) -> None:
    """In the status that the client reads: in the message, with the reason, and in the details."""
    names = [volume_name(), volume_name()]
    request = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2)
    opened, _ = (client.volumes.prepare_disk(name, request).rootfs for name in names)
    client.volume_snapshots.create(names, "one")
    failing = case.settings.layout.disk(names[1], clear=False).history
    lose_state(failing)
    with (
        machine_starting_before(failing, opened, "qcow2"),
        pytest.raises(CorruptVolumeError, match="state 77") as caught,
    ):
        client.volume_snapshots.roll_back(names, "one")
    assert f"volume {names[0]} stays rolled back to snapshot 'one'" in caught.value.message
    assert caught.value.details["given_up"] == str(names[0])
