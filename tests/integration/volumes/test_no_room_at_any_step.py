"""Snapshots and removals of container volumes, with the disk full from any of their steps on."""

from collections.abc import Callable, Iterator

import pytest

from cas.errors import NoSpaceError
from cas.fsops.effects import Effect, observed
from cas.model.volume_name import VolumeName
from cas.volumes.volumes import VolumeState
from tests.support.images import layered_image
from tests.support.trees import Tree, read_tree
from tests.support.volumes import Store, add_image, volume_name

_GROWS = frozenset(Effect) - {Effect.UNLINK, Effect.UNMOUNT}
"""Removing and unmounting take no room."""


@pytest.fixture
def name(store: Store) -> VolumeName:
    """A volume with a snapshot and something written since."""
    name = volume_name()
    store.volumes.prepare(name, add_image(store, layered_image(2)))
    _write(store, name, "first")
    store.volume_snapshots.create([name], "base")
    _write(store, name, "second")
    return name


def _write(store: Store, name: VolumeName, text: str) -> Tree:
    root = store.volumes.activate(name).rootfs
    (root / "data").write_text(text)
    (root / text).mkdir(exist_ok=True)
    store.volumes.deactivate(name)
    return _tree(store, name)


def _tree(store: Store, name: VolumeName) -> Tree:
    tree = read_tree(store.volumes.activate(name).rootfs)
    store.volumes.deactivate(name)
    return tree


def _names(store: Store, name: VolumeName) -> list[str]:
    return [each.name for each in store.volume_snapshots.iter_snapshots(name)]


def _failing_at_each_step(store: Store, act: Callable[[], object]) -> Iterator[None]:
    """Let ``act`` fail at each change that needs room, and recover; ends when it has succeeded."""
    for position in range(200):
        left = position

        def fail(kind: Effect, path: str) -> None:
            nonlocal left
            if kind in _GROWS:
                left -= 1
                if left < 0:
                    message = f"no room for {path}, says the test"
                    raise NoSpaceError(message)

        try:
            with observed(fail):
                act()
        except NoSpaceError:
            store.volumes.recover()
            store.assert_nothing_is_running()
            assert store.volumes.recover() == []
            yield
        else:
            assert position >= 3
            return
    pytest.fail("it never succeeds")


@pytest.mark.once
def test_snapshot_without_room_is_taken_or_not(store: Store, name: VolumeName) -> None:
    """The content is the same either way."""
    tree = _tree(store, name)
    taken = 0

    def take() -> None:
        store.volume_snapshots.create([name], f"new-{taken}")

    for _ in _failing_at_each_step(store, take):
        assert _tree(store, name) == tree
        taken = len(_names(store, name)) - 1
    assert _tree(store, name) == tree
    assert f"new-{taken}" in _names(store, name)


@pytest.mark.once
def test_rollback_without_room_is_done_or_not(store: Store, name: VolumeName) -> None:
    """The state of now, or that of the snapshot."""
    second = _tree(store, name)

    for _ in _failing_at_each_step(store, lambda: store.volume_snapshots.roll_back([name], "base")):
        if _tree(store, name) != second:
            assert _write(store, name, "second") == second
    assert _tree(store, name) != second
    assert _names(store, name) == ["base"]


@pytest.mark.once
def test_removal_of_a_snapshot_without_room_is_done_or_not(store: Store, name: VolumeName) -> None:
    """What is seen in the volume stays the same."""
    second = _tree(store, name)

    for _ in _failing_at_each_step(store, lambda: store.volume_snapshots.remove(name, "base")):
        assert _tree(store, name) == second
        if not _names(store, name):
            store.volume_snapshots.create([name], "base")
    assert _tree(store, name) == second
    assert _names(store, name) == []


@pytest.mark.once
def test_removal_of_a_volume_without_room_is_done_or_not(store: Store, name: VolumeName) -> None:
    """Either all of it is there, or it is gone with its layers."""
    second = _tree(store, name)

    for _ in _failing_at_each_step(store, lambda: store.volumes.remove(name)):
        if any(status.name == name for status in store.volumes.iter_volumes()):
            assert store.volumes.get(name).state is VolumeState.INACTIVE
            assert _tree(store, name) == second
        else:
            store.volumes.prepare(name, layered_image(2).name)
            _write(store, name, "first")
            store.volume_snapshots.create([name], "base")
            assert _write(store, name, "second") == second
    assert [key for key in store.snapshots() if str(name) in key] == []
