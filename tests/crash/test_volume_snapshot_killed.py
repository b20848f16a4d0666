"""Snapshots of volumes, killed at the steps of taking, returning to and removing one.

Where only some steps are taken, a comment says why; with ``--every-step`` all are.
"""

import pytest

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.volumes.volumes import VolumeState
from tests.support.images import layered_image
from tests.support.trees import Tree, read_tree
from tests.support.volume_kills import killed_at_each_step, recover
from tests.support.volumes import Store, add_image, open_store, volume_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # for every step


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    store = open_store(containerd, settings)
    add_image(store, layered_image(2))
    return store


@pytest.fixture
def name(store: Store) -> VolumeName:
    name = volume_name()
    store.volumes.prepare(name, layered_image(2).name)
    return name


def _write(store: Store, name: VolumeName, text: str) -> Tree:
    root = store.volumes.activate(name).rootfs
    (root / "data").write_text(text)
    (root / "only").mkdir(exist_ok=True)
    (root / "only" / text).write_text(text)
    tree = read_tree(root)
    store.volumes.deactivate(name)
    return tree


def _tree(store: Store, name: VolumeName) -> Tree:
    status = store.volumes.activate(name)
    assert status.state is VolumeState.ACTIVE
    tree = read_tree(status.rootfs)
    store.volumes.deactivate(name)
    return tree


def _names(store: Store, name: VolumeName) -> list[str]:
    return [each.name for each in store.volume_snapshots.iter_snapshots(name)]


def _own(store: Store) -> int:
    return len([key for key in store.snapshots() if "#" in key])


def test_taking_killed_at_any_step_is_done_or_not_after_recovery(
    store: Store, name: VolumeName
) -> None:
    """The volume's content is the same either way, and the snapshot is whole if it is there."""
    first = _write(store, name, "first")
    store.volume_snapshots.create([name], "base")
    tree = _write(store, name, "second")
    for _ in killed_at_each_step(store, "snapshot-create", "new", str(name)):
        recover(store)
        assert _tree(store, name) == tree
        assert _names(store, name) in (["base"], ["base", "new"])
        if "new" in _names(store, name):
            assert _own(store) == 3
            store.volume_snapshots.remove(name, "new")
        assert _own(store) == 2
    store.volume_snapshots.roll_back([name], "base")
    assert _tree(store, name) == first
    store.volume_snapshots.roll_back([name], "new")
    assert _tree(store, name) == tree


def test_rollback_killed_at_any_step_is_done_or_not_after_recovery(
    store: Store, name: VolumeName
) -> None:
    """The old state with the later snapshots, or the new one without them."""
    first = _write(store, name, "first")
    store.volume_snapshots.create([name], "base")

    def go_on() -> Tree:
        _write(store, name, "second")
        store.volume_snapshots.create([name], "later")
        return _write(store, name, "third")

    tree = go_on()
    for _ in killed_at_each_step(store, "snapshot-rollback", "base", str(name)):
        recover(store)
        if "later" not in _names(store, name):
            assert _tree(store, name) == first
            assert _own(store) == 2
            assert go_on() == tree
        assert _tree(store, name) == tree
    assert _tree(store, name) == first


def test_removal_killed_at_any_step_is_done_or_not_after_recovery(
    store: Store, name: VolumeName, *, every_step: bool
) -> None:
    """The other snapshot and the volume keep their content, and no layer stays behind."""
    _write(store, name, "first")
    store.volume_snapshots.create([name], "gone")
    second = _write(store, name, "second")
    store.volume_snapshots.create([name], "later")
    tree = _write(store, name, "third")
    # Half of the many steps: tests of the merge itself stop it at each.
    for _ in killed_at_each_step(
        store, "snapshot-rm", "gone", str(name), stride=1 if every_step else 2
    ):
        recover(store)
        assert _tree(store, name) == tree
        if "gone" not in _names(store, name):
            assert _own(store) == 2
            store.volume_snapshots.roll_back([name], "later")
            assert _tree(store, name) == second
            _recreate(store, name)
    assert _names(store, name) == ["later"]
    store.volume_snapshots.roll_back([name], "later")
    assert _tree(store, name) == second


def _recreate(store: Store, name: VolumeName) -> None:
    """Make a volume of the same content as before the removal."""
    store.volumes.remove(name)
    store.volumes.prepare(name, layered_image(2).name)
    _write(store, name, "first")
    store.volume_snapshots.create([name], "gone")
    _write(store, name, "second")
    store.volume_snapshots.create([name], "later")
    _write(store, name, "third")


@pytest.mark.parametrize("operation", ["snapshot-create", "snapshot-rollback"])
def test_group_killed_at_any_step_is_done_to_all_or_none(
    store: Store, operation: str, *, every_step: bool
) -> None:
    """After a recovery, or when a volume is used before any."""
    names = [volume_name() for _ in range(2)]
    for name in names:
        store.volumes.prepare(name, layered_image(2).name)
        _write(store, name, "first")
    if operation == "snapshot-rollback":
        store.volume_snapshots.create(names, "all")
    before = {name: _write(store, name, "second") for name in names}
    # A third of the steps: those of a single volume are all tested above.
    for step in killed_at_each_step(
        store, operation, "all", *map(str, names), stride=1 if every_step else 3
    ):
        if step % 2:
            recover(store)
        else:
            store.volumes.activate(names[step // 2 % 2])
            store.volumes.deactivate_all()
        if operation == "snapshot-create":
            done = [_names(store, name) == ["all"] for name in names]
        else:
            done = [_tree(store, name) != before[name] for name in names]
        assert done in ([True, True], [False, False])
        for name in names if done[0] else []:
            if operation == "snapshot-create":
                store.volume_snapshots.remove(name, "all")
            else:
                _write(store, name, "second")
        assert {name: _tree(store, name) for name in names} == before
    recover(store)
