"""Preparing and removing disk volumes, killed before each of their steps in turn."""

import gzip

import pytest

from cas.containerd.client import Containerd
from cas.model.disk.record import DiskRequest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.volumes.volumes import VolumeState
from tests.support.disks import MIB, add_disk, virtual_size
from tests.support.volume_kills import killed_at_each_step, recover
from tests.support.volumes import Store, open_store, volume_name


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    return open_store(containerd, settings)


def _recovered(store: Store) -> dict[VolumeName, VolumeState]:
    recover(store)
    return {status.name: status.state for status in store.volumes.iter_volumes()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_disk_killed_at_any_step_is_whole_or_gone_after_recovery(store: Store) -> None:
    """Unpacked, converted and grown."""
    source, name = add_disk(store, gzip.compress(b"boot" + bytes(MIB - 4))), volume_name()
    for _ in killed_at_each_step(store, "disk", str(name), source, str(2 * MIB), "qcow2"):
        assert _recovered(store) in ({}, {name: VolumeState.INACTIVE})
        store.volumes.remove(name)
    assert _recovered(store) == {name: VolumeState.INACTIVE}
    assert virtual_size(store.volumes.get(name).rootfs, "qcow2") == 2 * MIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_disk_killed_at_any_step_is_completed_by_repetition_alone(store: Store) -> None:
    """Copied; one killed try after the other leads to the volume."""
    disk = b"boot" + bytes(MIB - 4)
    source, name = add_disk(store, disk), volume_name()
    for _ in killed_at_each_step(store, "disk", str(name), source, str(MIB)):
        pass
    assert _recovered(store) == {name: VolumeState.INACTIVE}
    assert store.volumes.get(name).rootfs.read_bytes() == disk


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_removal_of_a_disk_killed_at_any_step_is_whole_or_gone(store: Store) -> None:
    """In clear; a bystander is untouched."""
    bystander, name = volume_name(7), volume_name()
    disk = b"precious" * 1000
    source = add_disk(store, disk)
    for each in (bystander, name):
        store.volumes.prepare_disk(each, DiskRequest(source, clear=True))
    for _ in killed_at_each_step(store, "remove", str(name)):
        states = _recovered(store)
        assert states.pop(bystander) is VolumeState.INACTIVE
        assert set(states) <= {name}
        assert (
            store.volumes.prepare_disk(name, DiskRequest(source, clear=True)).rootfs.read_bytes()
            == disk
        )
    assert _recovered(store) == {bystander: VolumeState.INACTIVE}
    assert store.volumes.get(bystander).rootfs.read_bytes() == disk
