"""Snapshots of container volumes: taken, returned to, removed."""

import os
import platform
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.errors import (
    CorruptVolumeError,
    InUseError,
    InvalidNameError,
    NoSpaceError,
    UnavailableError,
    VolumeConflictError,
    VolumeNotFoundError,
    VolumeSnapshotNotFoundError,
)
from cas.fsops import mount_namespaces
from cas.fsops.effects import Effect, observed
from cas.model.platforms import host_platform
from cas.model.volume_history import freeze, top_of
from cas.model.volume_name import VolumeName
from cas.store.account.usage import Usage
from cas.store.account.why import Why
from cas.store.check.check import Check
from cas.store.check.findings import Problem
from cas.volumes.group_journal import Group, GroupAction, note_group
from cas.volumes.records import read_record, replace_record
from cas.volumes.snapshots import VolumeSnapshots
from cas.volumes.status import RecoveryAction
from cas.volumes.volumes import VolumeState
from tests.support.daemon import WAIT_SECONDS, connect
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.layers import directory, file, symlink
from tests.support.trees import Tree, read_tree
from tests.support.volumes import Store, add_image, open_store, snapshot_directories, volume_name

_MANY = 105


@pytest.fixture
def snapshots(store: Store) -> VolumeSnapshots:
    return store.volume_snapshots


@pytest.fixture
def image(store: Store) -> BuiltImage:
    """Two layers with directories, some of which the tests replace."""
    layers = [
        [directory("bin"), file("bin/tool", b"tool"), directory("n1"), file("n1/n0", b"0")],
        [directory("n0"), directory("n0/n1"), file("n0/n1/n2", b"2"), symlink("n2", "n0")],
    ]
    built = build_image(layers)
    add_image(store, built)
    return built


@pytest.fixture
def name(store: Store, image: BuiltImage) -> VolumeName:
    name = volume_name()
    store.volumes.prepare(name, image.name)
    return name


def _write(store: Store, name: VolumeName, **files: str) -> None:
    root = store.volumes.activate(name).rootfs
    for path, text in files.items():
        (root / path).write_text(text)
    store.volumes.deactivate(name)


def _tree(store: Store, name: VolumeName) -> Tree:
    tree = read_tree(store.volumes.activate(name).rootfs)
    store.volumes.deactivate(name)
    return tree


def _names(snapshots: VolumeSnapshots, name: VolumeName) -> list[str]:
    return [each.name for each in snapshots.iter_snapshots(name)]


def test_rollback_returns_to_the_state_of_the_snapshot(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """Byte for byte; what was written since is gone, and the snapshot is there for another time."""
    _write(store, name, kept="1", changed="old")
    before = _tree(store, name)
    taken = snapshots.create([name], "one")
    assert _tree(store, name) == before
    for _ in range(2):
        root = store.volumes.activate(name).rootfs
        (root / "changed").write_text("new")
        (root / "kept").unlink()
        shutil.rmtree(root / "bin")
        (root / "more").write_text("2")
        store.volumes.deactivate(name)
        assert _tree(store, name) != before
        assert snapshots.roll_back([name], "one") == taken
        assert _tree(store, name) == before
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert list(store.backing.leases.iter_leases()) == []


def test_snapshot_of_a_name_that_is_there_changes_nothing(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """Repeated, it gives the same; the state is that of the first time."""
    _write(store, name, data="1")
    taken = snapshots.create([name], "one")
    _write(store, name, data="2")
    before = store.snapshots()
    assert snapshots.create([name], "one") == taken
    assert store.snapshots() == before
    snapshots.roll_back([name], "one")
    assert (store.volumes.activate(name).rootfs / "data").read_text() == "1"


@pytest.mark.parametrize("drop", [False, True])
def test_rollback_keeps_or_drops_what_came_after(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, *, drop: bool
) -> None:
    """Kept snapshots can be returned to; dropped ones are gone from the disk too."""
    trees = {}
    for snapshot in ("one", "two", "three"):
        _write(store, name, data=snapshot)
        snapshots.create([name], snapshot)
        trees[snapshot] = _tree(store, name)
    snapshots.roll_back([name], "one", drop_later=drop)
    assert _tree(store, name) == trees["one"]
    assert _names(snapshots, name) == (["one"] if drop else ["one", "two", "three"])
    if drop:
        assert len([key for key in store.snapshots() if "#" in key]) == 2
    else:
        snapshots.roll_back([name], "three")
        assert _tree(store, name) == trees["three"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_removal_in_any_order_gives_the_space_back(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, order: tuple[int, ...]
) -> None:
    """What is left is what was never removed, in as many directories as before the first."""
    store.backing.leases.collect_garbage()
    before = len(snapshot_directories(store.settings))
    for number in range(3):
        _write(store, name, **{f"own-{number}": "x" * 500_000, "same": str(number) * 500_000})
        snapshots.create([name], f"s{number}")
    _write(store, name, **{"own-0": "", "own-1": "", "own-2": "", "same": ""})
    tree = _tree(store, name)
    for number in order:
        assert snapshots.remove(name, f"s{number}") is True
        assert snapshots.remove(name, f"s{number}") is False
        assert _tree(store, name) == tree
    store.backing.leases.collect_garbage()
    assert len(snapshot_directories(store.settings)) == before
    usage = store.volumes.usage(name)
    assert usage.own_bytes < 100_000
    assert usage.snapshot_bytes == 0


def _change(root: Path, rng: random.Random) -> None:
    """Change a tree in one of the ways that leave marks in a layer."""
    places = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    place = rng.choice(places)
    target = place / f"n{rng.randrange(4)}"
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists() or target.is_symlink():
        target.unlink()
    match rng.randrange(5):
        case 0:
            target.mkdir(mode=0o750)
            (target / "n0").write_text(str(rng.random()))
        case 1:
            target.write_text(str(rng.random()))
        case 2:
            target.symlink_to("n1")
        case 3 if place != root:
            shutil.rmtree(place)
            place.mkdir()
        case _:
            pass


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.once) for seed in (1, 2))]
)
def test_snapshots_keep_their_states_whatever_is_removed_between(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, seed: int
) -> None:
    """A random history of changes, snapshots, rollbacks and removals, each state byte for byte."""
    rng = random.Random(seed)
    states: dict[str, Tree] = {}
    for step in range(14):
        root = store.volumes.activate(name).rootfs
        for _ in range(6):
            _change(root, rng)
        store.volumes.deactivate(name)
        action = rng.choice(["create", "create", "roll back", "remove"])
        if action == "create" or not states:
            snapshots.create([name], f"s{step}")
            states[f"s{step}"] = _tree(store, name)
        elif action == "roll back":
            chosen = rng.choice(list(states))
            snapshots.roll_back([name], chosen)
            assert _tree(store, name) == states[chosen]
        else:
            chosen = rng.choice(list(states))
            current = _tree(store, name)
            snapshots.remove(name, chosen)
            del states[chosen]
            assert _tree(store, name) == current
    assert _names(snapshots, name) == list(states)
    for snapshot, tree in states.items():
        snapshots.roll_back([name], snapshot)
        assert _tree(store, name) == tree
    assert store.volumes.recover() == []
    store.assert_nothing_is_running()


def test_active_volume_is_refused_unless_quiesced(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """Refused, nothing changes; quiesced, it is active afterwards with its content."""
    root = store.volumes.activate(name).rootfs
    (root / "data").write_text("1")
    for quiesced in (False, True):
        with (root / "data").open(), pytest.raises(InUseError):
            snapshots.create([name], "one", quiesced=quiesced)
    with (root / "data").open():
        assert os.getpid() in dict(store.volumes.usage(name).users)
    assert store.volumes.usage(name).users == ()
    assert store.volumes.get(name).state is VolumeState.ACTIVE
    assert _names(snapshots, name) == []
    snapshots.create([name], "one", quiesced=True)
    assert (root / "data").read_text() == "1"
    (root / "data").write_text("2")
    with pytest.raises(InUseError):
        snapshots.roll_back([name], "one")
    assert (root / "data").read_text() == "2"
    snapshots.roll_back([name], "one", quiesced=True)
    assert (root / "data").read_text() == "1"
    with pytest.raises(InUseError):
        snapshots.remove(name, "one")
    snapshots.remove(name, "one", quiesced=True)
    assert (root / "data").read_text() == "1"
    assert store.volumes.get(name).state is VolumeState.ACTIVE


def test_snapshot_of_what_cannot_be_is_refused(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, image: BuiltImage
) -> None:
    """Each for its own reason, and nothing is left behind."""
    view = volume_name()
    store.volumes.prepare(view, image.name, read_only=True)
    with pytest.raises(VolumeConflictError, match="read-only"):
        snapshots.create([view], "one")
    with pytest.raises(VolumeNotFoundError):
        snapshots.create([volume_name()], "one")
    for bad in ("", "../x", "a/b", "-x", "x" * 129):
        with pytest.raises(InvalidNameError):
            snapshots.create([name], bad)
    with pytest.raises(VolumeSnapshotNotFoundError, match="it has none"):
        snapshots.roll_back([name], "one")
    assert snapshots.remove(name, "one") is False
    assert store.volumes.recover() == []


def test_volume_with_snapshots_is_removed_with_all_of_them(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, image: BuiltImage
) -> None:
    """Also those on other branches; the image's layers stay."""
    for snapshot in ("one", "two"):
        _write(store, name, data=snapshot)
        snapshots.create([name], snapshot)
    snapshots.roll_back([name], "one")
    snapshots.create([name], "three")
    store.volumes.remove(name)
    assert store.snapshots() == set(image.chain_ids)
    store.assert_nothing_is_running()


def test_collection_takes_nothing_of_a_snapshot(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, image: BuiltImage
) -> None:
    """Even when the image is gone."""
    _write(store, name, data="1")
    snapshots.create([name], "one")
    before = _tree(store, name)
    _write(store, name, data="2")
    store.backing.images.delete(image.name, sync=True)
    store.backing.leases.collect_garbage()
    snapshots.roll_back([name], "one")
    assert _tree(store, name) == before


@pytest.fixture
def group(store: Store, image: BuiltImage) -> list[VolumeName]:
    """Three volumes of one application."""
    names = [volume_name() for _ in range(3)]
    for each in names:
        store.volumes.prepare(each, image.name)
    return names


def test_group_is_taken_and_returned_to_together(
    store: Store, snapshots: VolumeSnapshots, group: list[VolumeName]
) -> None:
    """In the order asked for, also when some are active, and repeated without effect."""
    for each in group:
        _write(store, each, data="1")
    trees = [_tree(store, each) for each in group]
    store.volumes.activate(group[1])
    taken = snapshots.create(group, "all", quiesced=True)
    assert [each.volume for each in taken] == group
    assert snapshots.create(group, "all", quiesced=True) == taken
    for each in group:
        _write(store, each, data="2")
    assert snapshots.roll_back(group, "all") == taken
    assert [_tree(store, each) for each in group] == trees
    assert list(store.settings.layout.volume_groups.iterdir()) == []


def test_group_of_which_one_cannot_be_is_left_alone(
    store: Store, snapshots: VolumeSnapshots, group: list[VolumeName]
) -> None:
    """Whatever is wrong with the last of them, nothing happens to the others."""
    with pytest.raises(VolumeNotFoundError):
        snapshots.create([*group, volume_name()], "all")
    store.volumes.activate(group[2])
    with pytest.raises(InUseError):
        snapshots.create(group, "all")
    store.volumes.deactivate(group[2])
    snapshots.create(group[:2], "all")
    with pytest.raises(VolumeSnapshotNotFoundError):
        snapshots.roll_back(group, "all")
    assert [_names(snapshots, each) for each in group] == [["all"], ["all"], []]


@pytest.mark.parametrize("action", ["create", "roll back"])
def test_group_that_fails_in_the_middle_is_undone(
    store: Store, snapshots: VolumeSnapshots, group: list[VolumeName], action: str
) -> None:
    """The volumes that came before the failure are as they were, and nothing is left to do."""
    if action == "roll back":
        snapshots.create(group, "all")
    for each in group:
        _write(store, each, data="2")
    trees = [_tree(store, each) for each in group]

    def fail(kind: Effect, path: str) -> None:
        if kind is Effect.RENAME and path == str(store.settings.layout.volume_record(group[2])):
            message = "no room, says the test"
            raise NoSpaceError(message)

    act = snapshots.create if action == "create" else snapshots.roll_back
    with pytest.raises(NoSpaceError), observed(fail):
        act(group, "all")
    assert list(store.settings.layout.volume_groups.iterdir()) == []
    assert [_tree(store, each) for each in group] == trees
    assert [_names(snapshots, each) for each in group] == [
        [] if action == "create" else ["all"]
    ] * 3
    assert store.volumes.recover() == []


def test_active_volume_of_a_killed_rollback_keeps_what_is_written_into_it(
    store: Store, snapshots: VolumeSnapshots, group: list[VolumeName]
) -> None:
    """The others of the group are rolled back, and the active one is not when it is inactive."""
    snapshots.create(group, "all")
    trees = [_tree(store, each) for each in group]
    for each in group:
        _write(store, each, data="2")
    written = _tree(store, group[1])
    store.volumes.activate(group[1])
    layout = store.settings.layout
    before = {each: read_record(layout.volume(each), each).snapshot_key for each in group}
    note_group(layout, Group(GroupAction.ROLL_BACK, "all", drop_later=False, before=before))
    told = [each.reason for each in store.volumes.recover()]
    assert any(f"volume {group[1]} stays as it is" in each for each in told)
    store.volumes.deactivate(group[1])
    assert store.volumes.recover() == []
    assert [_tree(store, each) for each in group] == [trees[0], written, trees[2]]


_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
_KEEP_ONE_OVERLAY = """
for each in $(grep -F ' - overlay ' /proc/self/mountinfo | cut -d' ' -f5); do
  [ "$each" = "$0" ] || umount "$each"  # volumes of tests that run beside this one
done
echo
read x
"""


def test_volume_whose_copy_in_a_new_mount_namespace_goes_is_not_in_use(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each container that is being started has every mount for a moment."""
    monkeypatch.setattr(mount_namespaces, "_NEW_SECONDS", WAIT_SECONDS)
    root = store.volumes.activate(name).rootfs
    command = [*_NAMESPACE, "echo; sleep 0.3; umount $0; read x", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        snapshots.create([name], "one", quiesced=True)
        other.communicate(b"\n")
    assert _names(snapshots, name) == ["one"]


def test_volume_that_another_mount_namespace_still_has_is_refused(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's mount outlives ours and would write into what is frozen."""
    root = store.volumes.activate(name).rootfs
    (root / "data").write_text("1")
    command = [*_NAMESPACE, _KEEP_ONE_OVERLAY, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with monkeypatch.context() as at_once:
            at_once.setattr(mount_namespaces, "_NEW_SECONDS", 0.0)
            with pytest.raises(InUseError, match=r"process \d+"):
                snapshots.create([name], "one", quiesced=True)
        other.communicate(b"\n")
    assert (root / "data").read_text() == "1"
    assert _names(snapshots, name) == []
    snapshots.create([name], "one", quiesced=True)


@pytest.mark.slow
def test_chain_of_many_snapshots_is_mounted_accounted_for_and_gone_again(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """Deeper than one page of mount options; the first state and the account are right."""
    for number in range(_MANY):
        _write(store, name, data=f"{number}", **{f"own-{number}": "x" * 50_000})
        snapshots.create([name], f"s{number}")
    (mount,) = store.backing.snapshots.mounts(store.volumes.activate(name).record.snapshot_key)  # type: ignore[union-attr]
    assert len(",".join(mount.options)) > 4096
    store.volumes.deactivate(name)
    assert len(_tree(store, name)) >= _MANY
    _assert_account_adds_up(store)
    snapshots.roll_back([name], "s3", drop_later=True)
    tree = _tree(store, name)
    assert "own-3" in tree
    assert "own-4" not in tree
    for number in (1, 3, 0, 2):
        assert snapshots.remove(name, f"s{number}")
    assert _tree(store, name) == tree
    assert len([key for key in store.snapshots() if "#" in key]) == 1
    _assert_account_adds_up(store)


def _assert_account_adds_up(store: Store) -> None:
    """Volumes' parts are what the files of their layers take, and all is what du finds."""
    store.backing.leases.collect_garbage()
    usage = Usage(store.backing).measure()
    written = sum(volume.own_bytes + volume.snapshot_bytes for volume in usage.volumes)
    [entry] = [each for each in usage.entries if (each.owner, each.part) == ("volumes", "written")]
    assert entry.size == written
    assert entry.objects == len([key for key in store.snapshots() if "#" in key])
    persist = store.settings.persist
    found = subprocess.run(
        ["du", "-sB1", "--one-file-system", persist], check=True, capture_output=True, text=True
    )
    assert abs(usage.size - int(found.stdout.split()[0])) < 512 * 1024


def test_check_and_why_know_the_layers_of_snapshots(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """Whole, nothing is found; a layer is kept by its volume; one that is lost is named."""
    for snapshot in ("one", "two"):
        _write(store, name, data=snapshot)
        snapshots.create([name], snapshot)
    snapshots.roll_back([name], "one")
    record = store.volumes.get(name).record
    assert record is not None
    assert record.history is not None
    lost = record.history.layers[1].key
    [explained] = Why(store.backing).explain(lost)
    assert str(name) in {root.name for root in explained.roots}
    check = Check(
        store.backing, platform=host_platform(platform.machine()), judge=store.volumes.iter_volumes
    )
    assert list(check.run()) == []
    store.backing.snapshots.remove(lost)
    [finding] = check.run()
    assert (finding.problem, finding.volumes) == (Problem.VOLUME_SNAPSHOT, (str(name),))
    assert lost in finding.message


@pytest.mark.parametrize("action", ["create", "roll back"])
def test_containerd_killed_in_the_middle_is_made_up_for(
    restartable_daemon: Daemon, action: str
) -> None:
    """The record was replaced and containerd dies then: the next recovery completes the change."""
    settings = replace(restartable_daemon.settings, namespace="t")
    with connect(settings) as containerd:
        store, name = open_store(containerd, settings), volume_name()
        store.volumes.prepare(name, add_image(store, layered_image(2)))
        _write(store, name, data="1")
        store.volume_snapshots.create([name], "one")
        _write(store, name, data="2")
        directory = str(store.settings.layout.volume(name))

        def kill(kind: Effect, path: str) -> None:
            if kind is Effect.FSYNC and path == directory:
                restartable_daemon.kill()

        act = store.volume_snapshots.create
        arguments = ([name], "two")
        if action == "roll back":
            act, arguments = store.volume_snapshots.roll_back, ([name], "one")
        with pytest.raises(UnavailableError), observed(kill):
            act(*arguments)
    restartable_daemon.start()
    with connect(settings) as containerd:
        store = open_store(containerd, settings)
        store.leasing.reap()
        store.volumes.recover()
        assert store.volumes.recover() == []
        names = _names(store.volume_snapshots, name)
        assert names == (["one", "two"] if action == "create" else ["one"])
        data = store.volumes.activate(name).rootfs / "data"
        assert data.read_text() == ("2" if action == "create" else "1")
        store.volumes.deactivate(name)


def test_volume_that_lost_its_writable_layer_says_so_and_can_be_rolled_back(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """No empty layer takes the place of one that was written into."""
    _write(store, name, data="1")
    snapshots.create([name], "one")
    before = _tree(store, name)
    _write(store, name, data="2")
    status = store.volumes.get(name)
    assert status.record is not None
    store.backing.snapshots.remove(status.record.snapshot_key)
    assert store.volumes.get(name).state is VolumeState.CORRUPT
    with pytest.raises(CorruptVolumeError, match="roll back"):
        store.volumes.activate(name)
    with pytest.raises(CorruptVolumeError):
        snapshots.create([name], "two")
    store.volumes.recover()
    assert store.volumes.get(name).state is VolumeState.CORRUPT
    snapshots.roll_back([name], "one")
    assert _tree(store, name) == before
    assert store.volumes.recover() == []


def test_volume_of_an_image_without_layers_has_snapshots_too(
    store: Store, snapshots: VolumeSnapshots
) -> None:
    """Its first layer is a plain directory, in which nothing may show that an overlay hides."""
    name = volume_name()
    store.volumes.prepare(name, add_image(store, build_image([], name="example.com/empty:1")))
    _write(store, name, data="1", gone="1")
    snapshots.create([name], "one")
    one = _tree(store, name)
    (store.volumes.activate(name).rootfs / "gone").unlink()
    store.volumes.deactivate(name)
    snapshots.create([name], "two")
    _write(store, name, data="3")
    tree = _tree(store, name)
    assert "gone" not in tree
    snapshots.remove(name, "two")
    assert _tree(store, name) == tree
    snapshots.roll_back([name], "one")
    assert _tree(store, name) == one
    snapshots.remove(name, "one")
    assert _tree(store, name) == one
    assert store.volumes.recover() == []


def test_all_volumes_are_activated_at_boot_also_one_whose_snapshot_was_interrupted(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName, image: BuiltImage
) -> None:
    """As after a power cut right behind the replacement of the record."""
    other = volume_name()
    store.volumes.prepare(other, image.name)
    for each in (name, other):
        _write(store, each, data="1")
        snapshots.create([each], "one")
        _write(store, each, data="2")
    record = store.volumes.get(name).record
    assert record is not None
    after = freeze(record, "two", parent=top_of(record), now=store.backing.clock())
    replace_record(store.settings.layout.volume(name), after)
    assert [error for _, error in store.volumes.activate_all()] == [None, None]
    for each in (name, other):
        assert (store.volumes.get(each).rootfs / "data").read_text() == "2"
    assert _names(snapshots, name) == ["one", "two"]
    store.volumes.deactivate_all()
    assert store.volumes.recover() == []


def test_layer_with_an_immutable_file_stays_until_it_can_be_merged(
    store: Store, snapshots: VolumeSnapshots, name: VolumeName
) -> None:
    """The snapshot is gone, the volume is the same, and a later recovery gives the space back."""
    _write(store, name, data="1", fixed="1")
    upper = store.backing.snapshots.mounts(str(name))[0].option("upperdir")
    assert upper is not None
    snapshots.create([name], "one")
    tree = _tree(store, name)
    subprocess.run(["chattr", "+i", f"{upper}/fixed"], check=True)
    try:
        assert snapshots.remove(name, "one")
        assert _names(snapshots, name) == []
        assert _tree(store, name) == tree
        assert store.volumes.recover() == []
    finally:
        subprocess.run(["chattr", "-i", f"{upper}/fixed"], check=True)
    assert [each.action for each in store.volumes.recover()] == [RecoveryAction.FINISHED_SNAPSHOT]
    assert _tree(store, name) == tree
    assert len([key for key in store.snapshots() if "#" in key]) == 1


def test_store_opened_by_another_path_goes_on_with_snapshots(
    store: Store,
    snapshots: VolumeSnapshots,
    name: VolumeName,
    tmp_path: Path,
    containerd: Containerd,
) -> None:
    """The directory of the volumes is the same, whatever link leads to it."""
    _write(store, name, data="1")
    snapshots.create([name], "one")
    link = tmp_path / "persist"
    link.symlink_to(store.settings.persist)
    other = open_store(containerd, replace(store.settings, persist=link))
    other.volume_snapshots.create([name], "two")
    other.volume_snapshots.roll_back([name], "one")
    assert (store.volumes.activate(name).rootfs / "data").read_text() == "1"
    store.volumes.deactivate(name)
