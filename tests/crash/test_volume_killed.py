"""Preparing and removing volumes, killed before each of their steps in turn.

A step is a change of the file system or a call that changes something in containerd, so that these
tests meet every state in which a kill can leave a volume.
"""

import pytest

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.volumes.volumes import VolumeState
from tests.support.images import BuiltImage, layered_image
from tests.support.volume_kills import forget_layers, killed_at_each_step, recover
from tests.support.volumes import Store, add_image, open_store, volume_name


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    return open_store(containerd, settings)


@pytest.fixture
def image(store: Store) -> BuiltImage:
    built = layered_image(2)
    add_image(store, built)
    return built


def _states(store: Store) -> dict[VolumeName, VolumeState]:
    return {status.name: status.state for status in store.volumes.iter_volumes()}


def _volume_snapshots(store: Store) -> set[str]:
    return {name for name in store.snapshots() if "#" in name}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_prepare_killed_at_any_step_is_whole_or_gone_after_recovery(
    store: Store, image: BuiltImage
) -> None:
    """Never something between, and the repetition makes the volume."""
    name = volume_name()
    for _ in killed_at_each_step(store, "prepare", str(name), image.name):
        recover(store)
        states = _states(store)
        assert states in ({}, {name: VolumeState.INACTIVE})
        assert _volume_snapshots(store) == {str(each) for each in states}
        root = store.volumes.prepare(name, image.name, activate=True).rootfs
        assert (root / "top").read_text() == "1\n"
        store.volumes.remove(name)
        forget_layers(store)
    assert _states(store) == {name: VolumeState.INACTIVE}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_prepare_killed_at_any_step_is_completed_by_repetition_alone(
    store: Store, image: BuiltImage
) -> None:
    """Without a recovery in between, one killed try after the other leads to the volume."""
    name = volume_name()
    for _ in killed_at_each_step(store, "prepare", str(name), image.name):
        assert all(state is not VolumeState.CORRUPT for state in _states(store).values())
    assert _states(store) == {name: VolumeState.INACTIVE}
    assert (store.volumes.activate(name).rootfs / "top").read_text() == "1\n"
    recover(store)
    assert _states(store) == {name: VolumeState.ACTIVE}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_remove_killed_at_any_step_is_whole_or_gone_after_recovery(
    store: Store, image: BuiltImage
) -> None:
    """The volume is there with its data, or nothing of it is; a bystander is untouched."""
    bystander = volume_name(7)
    root = store.volumes.prepare(bystander, image.name, activate=True).rootfs
    (root / "data").write_text("precious")
    name = volume_name()

    def make() -> None:
        made = store.volumes.prepare(name, image.name, activate=True).rootfs
        (made / "data").write_text("x")

    make()
    for _ in killed_at_each_step(store, "remove", str(name)):
        recover(store)
        states = _states(store)
        assert states.pop(bystander) is VolumeState.ACTIVE
        assert _volume_snapshots(store) == {str(bystander), *map(str, states)}
        if states:
            assert set(states) == {name}
            assert (store.volumes.activate(name).rootfs / "data").read_text() == "x"
        else:
            make()
    assert _states(store) == {bystander: VolumeState.ACTIVE}
    assert (root / "data").read_text() == "precious"
