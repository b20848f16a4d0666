"""Snapshots of disk volumes: inside a qcow2, and of raw disks where blocks can be shared."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    CorruptVolumeError,
    InUseError,
    LimitExceededError,
    NoSpaceError,
    QemuImgMissingError,
    VolumeConflictError,
    VolumeNotFoundError,
    VolumeSnapshotNotFoundError,
)
from cas.fsops.durable import sync_file_system
from cas.fsops.effects import Effect, observed
from cas.fsops.encryption import set_policy
from cas.fsops.encryption_keys import add_key, remove_key
from cas.fsops.record_locks import has_record_lock
from cas.fsops.trees import free_bytes
from cas.model.disk import history
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.events import EventKind
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.store.account.sharing import counted_twice
from cas.store.check.check import Check
from cas.store.prune.reserve import keep_reserve
from cas.volumes.disk.snapshot_check import iter_snapshot_problems
from cas.volumes.group_journal import Group, GroupAction, note_group
from cas.volumes.status import RecoveryAction
from cas.volumes.volumes import VolumeState
from tests.support.disks import (
    MIB,
    add_disk,
    change_disk,
    content_of,
    qemu_image,
)
from tests.support.images import busybox_image
from tests.support.loopfs import LoopFileSystem, mounted_at
from tests.support.machines import Machine, lose_state
from tests.support.vaults import secret
from tests.support.volumes import Store, add_image, open_store, volume_name
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from io import BufferedRandom

_SIZE = 4 * MIB
_HISTORY = """{
    "format_version": 1,
    "snapshots": [
        {"name": "one", "number": 1, "created": "2026-01-02T03:04:05Z", "allocated": 4096}
    ],
    "next_number": 2,
    "doomed": [],
    "restoring": null,
    "token": "0123456789abcdef"
}
"""


@dataclass(frozen=True)
class Disk:
    """A disk volume under test."""

    store: Store
    name: VolumeName
    request: DiskRequest
    scratch: Path

    @property
    def path(self) -> Path:
        return self.store.volumes.get(self.name).rootfs

    @property
    def format(self) -> DiskFormat:
        disk = self.store.volumes.get(self.name).disk
        assert disk is not None
        return disk.format

    def write(self, pattern: int, *, size: int = MIB) -> bytes:
        """Let a machine write, and give the disk's content then."""
        change_disk(self.path, self.format, pattern, size=size)
        return self.content()

    def content(self) -> bytes:
        return content_of(self.path, self.format, self.scratch)

    def taken(self) -> int:
        """Bytes that the file system has given the volume with its snapshots."""
        if self.request.clear:  # alone on its file system
            sync_file_system(self.path.parent)
            return -free_bytes(self.path.parent)
        return self.path.stat().st_blocks * 512

    def names(self) -> list[str]:
        return [each.name for each in self.store.volume_snapshots.iter_snapshots(self.name)]


@pytest.fixture(params=["qcow2", "xfs"])
def disk(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Disk]:
    """A disk of 4 MiB that can have snapshots, its start full of data."""
    if request.param == "qcow2":
        yield _prepared(store, tmp_path, DiskRequest(None, size=_SIZE, format=DiskFormat.QCOW2))
        return
    with mounted_at(store.settings.layout.clear_volumes, request.param, tmp_path / "fs"):
        yield _prepared(store, tmp_path, DiskRequest(None, size=_SIZE, clear=True))


@pytest.fixture
def qcow2(store: Store, tmp_path: Path) -> Disk:
    return _prepared(store, tmp_path, DiskRequest(None, size=_SIZE, format=DiskFormat.QCOW2))


def _prepared(store: Store, scratch: Path, request: DiskRequest) -> Disk:
    disk = Disk(store, volume_name(), request, scratch)
    store.volumes.prepare_disk(disk.name, request)
    disk.write(1)
    return disk


def _findings(store: Store) -> list[str]:
    check = Check(
        store.backing,
        platform=store.images.platform,
        judge=store.volumes.iter_volumes,
        disk_snapshots=lambda: iter_snapshot_problems(store.backing, store.locks),
    )
    return [f"{each.object}: {each.message}" for each in check.run()]


def test_rollback_returns_to_the_state_of_the_snapshot(disk: Disk) -> None:
    """Byte for byte, later snapshots kept or dropped as asked, owner and attributes the same."""
    snapshots = disk.store.volume_snapshots
    os.chown(disk.path, 4242, 4343)  # whoever runs the machine may have made it theirs
    os.setxattr(disk.path, "user.of", b"them")
    status = disk.path.stat()
    first = disk.content()
    taken = snapshots.create([disk.name], "one")
    second = disk.write(2)
    assert snapshots.create([disk.name], "two")[0].own_bytes >= 0
    third = disk.write(3, size=2 * MIB)
    assert len({first, second, third}) == 3

    assert snapshots.roll_back([disk.name], "two")[0].name == "two"
    assert disk.content() == second
    assert [each.name for each in snapshots.roll_back([disk.name], "one")] == ["one"]
    assert disk.content() == first
    assert disk.names() == ["one", "two"]
    snapshots.roll_back([disk.name], "two")
    assert disk.content() == second
    snapshots.roll_back([disk.name], "one", drop_later=True)
    assert (disk.content(), disk.names()) == (first, ["one"])
    assert taken[0].created == next(iter(snapshots.iter_snapshots(disk.name))).created
    assert os.getxattr(disk.path, "user.of") == b"them"
    now = disk.path.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (
        status.st_uid,
        status.st_gid,
        stat.S_IMODE(status.st_mode),
    )
    assert disk.store.volumes.prepare_disk(disk.name, disk.request).state is VolumeState.INACTIVE
    assert _findings(disk.store) == []
    assert disk.store.volumes.recover() == []
    disk.store.assert_nothing_is_running()


def test_snapshot_that_is_removed_at_once_is_given_all_the_same(
    qcow2: Disk, containerd: Containerd
) -> None:
    """Whoever hears of it may be done with it before the caller has the answer."""
    store, name = qcow2.store, qcow2.name

    class Remover:
        def publish(self, kind: EventKind, names: Iterable[str], /) -> None:
            store.volume_snapshots.remove(name, "one")

    told = open_store(
        containerd, store.settings, adapt=lambda backing: replace(backing, events=Remover())
    ).volume_snapshots
    assert [each.name for each in told.create([name], "one")] == ["one"]
    store.volume_snapshots.create([name], "one")
    assert [each.name for each in told.roll_back([name], "one")] == ["one"]
    assert qcow2.names() == []


@pytest.mark.parametrize("order", ["one two three", "two three one"])
def test_removal_in_any_order_gives_the_space_back(disk: Disk, order: str) -> None:
    """And changes neither the disk nor the other snapshots; afterwards nothing is left of them."""
    snapshots = disk.store.volume_snapshots
    before = disk.taken()
    for pattern, name in enumerate(["one", "two", "three"], 2):
        snapshots.create([disk.name], name)
        change_disk(disk.path, disk.format, pattern, size=3 * MIB)
    content = disk.content()
    used = disk.taken() - before
    assert used > 6 * MIB
    usage = disk.store.volumes.usage(disk.name)
    assert usage.own_bytes + usage.snapshot_bytes > 6 * MIB
    for name in order.split():
        assert snapshots.remove(disk.name, name)
        assert not snapshots.remove(disk.name, name)
    assert disk.content() == content
    # XFS gives up the blocks of a removed file some time after its removal.
    wait_for(lambda: disk.taken() - before < used - 6 * MIB)
    assert not list(disk.path.parent.glob(".disks/*.snapshots"))
    assert disk.store.volumes.usage(disk.name).snapshot_bytes == 0


def test_volume_with_snapshots_is_removed_whole(disk: Disk) -> None:
    """The next disk of the name has none."""
    disk.store.volume_snapshots.create([disk.name], "one")
    assert disk.store.volumes.remove(disk.name)
    disk.store.assert_nothing_is_running()
    assert not list(disk.store.settings.layout.clear_volumes.glob(".disks/*"))
    disk.store.volumes.prepare_disk(disk.name, disk.request)
    assert disk.names() == []


def test_disk_that_is_open_is_refused(disk: Disk) -> None:
    """Whatever the caller says of it, and nothing changes."""
    snapshots = disk.store.volume_snapshots
    snapshots.create([disk.name], "one")
    content = disk.write(2)
    with disk.path.open("rb"):
        for quiesced in (False, True):
            with pytest.raises(InUseError):
                snapshots.create([disk.name], "two", quiesced=quiesced)
            with pytest.raises(InUseError):
                snapshots.roll_back([disk.name], "one", quiesced=quiesced)
            with pytest.raises(InUseError):
                snapshots.remove(disk.name, "one", quiesced=quiesced)
    assert (disk.content(), disk.names()) == (content, ["one"])


@pytest.mark.parametrize("act", ["rollback", "removal"])
def test_machine_that_starts_at_the_last_moment_has_the_disk(
    store: Store, tmp_path: Path, act: str
) -> None:
    """It waits until the volume is as it was, and nothing takes back what it writes then."""
    layout = store.settings.layout
    machines: list[Future[BufferedRandom]] = []

    def start_machine(effect: Effect, path: str) -> None:
        names = (paths.file, paths.preparing)
        if effect is Effect.RENAME and Path(path) in names and not machines:
            machines.append(executor.submit(paths.file.open, "r+b"))
            inode = f":{paths.file.stat().st_ino} "
            wait_for(lambda: _is_breaking(inode))

    with (
        mounted_at(layout.clear_volumes, "xfs", tmp_path / "fs"),
        ThreadPoolExecutor() as executor,
    ):
        disk = _prepared(store, tmp_path, DiskRequest(None, size=_SIZE, clear=True))
        paths = layout.disk(disk.name, clear=True)
        store.volume_snapshots.create([disk.name], "one")
        disk.write(2)
        rollback = partial(store.volume_snapshots.roll_back, [disk.name], "one")
        change = rollback if act == "rollback" else partial(store.volumes.remove, disk.name)
        with observed(start_machine), pytest.raises(InUseError):
            change()
        with machines[0].result() as machine:
            assert os.path.samestat(os.fstat(machine.fileno()), paths.file.stat())
            content = disk.write(3, size=2 * MIB)
            assert store.volumes.recover() == []
        assert store.volumes.recover() == []
        assert (disk.content(), disk.names()) == (content, ["one"])
        assert _findings(store) == []
        store.assert_nothing_is_running()


@pytest.mark.parametrize(("moment", "act"), [(0, "snapshot"), (2, "rollback")])
def test_machine_that_starts_before_qemu_img_is_why_nothing_is_done(
    qcow2: Disk, moment: int, act: str
) -> None:
    """Nobody is told that the image is damaged; the machine keeps the disk and what it writes."""
    paths = qcow2.store.settings.layout.disk(qcow2.name, clear=False)
    snapshots, lent = qcow2.store.volume_snapshots, [0]
    machines: list[subprocess.Popen[bytes]] = []

    def start_machine(effect: Effect, path: str) -> None:
        if effect is not Effect.ACCESS or Path(path) != paths.file:
            return
        if lent[0] == moment:
            command = ["qemu-io", "-f", "qcow2", path]
            machines.append(subprocess.Popen(command, stdin=subprocess.PIPE))
            wait_for(lambda: has_record_lock(paths.file))
        lent[0] += 1

    snapshots.create([qcow2.name], "one")
    qcow2.write(2)
    changes = {"snapshot": snapshots.create, "rollback": snapshots.roll_back}
    with observed(start_machine), pytest.raises(InUseError) as caught:
        changes[act]([qcow2.name], "two" if act == "snapshot" else "one")
    assert all("open in process" in note for note in caught.value.__notes__)
    machines[0].communicate(f"write -P 3 0 {2 * MIB}\nflush\nquit\n".encode())
    content = qcow2.content()
    assert content[MIB] == 3
    qcow2.store.volumes.recover()
    assert (qcow2.content(), qcow2.names()) == (content, ["one"])
    assert _findings(qcow2.store) == []


def _is_breaking(inode: str) -> bool:
    rows = Path("/proc/locks").read_text().splitlines()
    return any("BREAKING" in row and inode in row for row in rows)


def test_bad_requests_change_nothing(qcow2: Disk) -> None:
    """A snapshot that is not there, a volume that is not, a name that is taken."""
    snapshots = qcow2.store.volume_snapshots
    snapshots.create([qcow2.name], "one")
    content = qcow2.write(2)
    with pytest.raises(VolumeSnapshotNotFoundError, match="it has 'one'"):
        snapshots.roll_back([qcow2.name], "absent")
    with pytest.raises(VolumeNotFoundError):
        snapshots.create([qcow2.name, volume_name()], "two")
    again = snapshots.create([qcow2.name], "one")
    assert (qcow2.content(), qcow2.names()) == (content, ["one"])
    snapshots.roll_back([qcow2.name], again[0].name)
    assert qcow2.content() != content


@pytest.mark.parametrize("disk_format", ["raw", "vmdk", "vhdx"])
def test_disk_that_cannot_share_is_refused_with_the_reason(
    store: Store, tmp_path: Path, disk_format: str
) -> None:
    """Raw where no blocks are shared, and formats without snapshots; nothing is left of the try."""
    source = add_disk(store, qemu_image(tmp_path / "i", disk_format))
    name = volume_name()
    with mounted_at(store.settings.layout.clear_volumes, "ext4", tmp_path / "fs"):
        store.volumes.prepare_disk(name, DiskRequest(source, clear=True))
        with pytest.raises(VolumeConflictError, match=r"--format qcow2"):
            store.volume_snapshots.create([name], "one")
        assert list(store.volume_snapshots.iter_snapshots(name)) == []
        assert store.volumes.recover() == []
        store.assert_nothing_is_running()
        assert store.volumes.remove(name)


def test_read_only_disk_has_no_snapshots(store: Store) -> None:
    """It never changes."""
    name = volume_name()
    request = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2, read_only=True)
    store.volumes.prepare_disk(name, request)
    with pytest.raises(VolumeConflictError, match="read-only"):
        store.volume_snapshots.create([name], "one")


def test_group_of_a_container_and_disks_is_all_or_none(qcow2: Disk, tmp_path: Path) -> None:
    """What cannot be done to the last one is undone in the others."""
    store, snapshots = qcow2.store, qcow2.store.volume_snapshots
    image = busybox_image()
    add_image(store, image)
    container, raw = volume_name(), volume_name()
    store.volumes.prepare(container, image.name)
    _write(store, container, "first")
    first = qcow2.content()
    with mounted_at(store.settings.layout.clear_volumes, "ext4", tmp_path / "fs"):
        store.volumes.prepare_disk(raw, DiskRequest(None, size=MIB, clear=True))
        with pytest.raises(VolumeConflictError):
            snapshots.create([container, qcow2.name, raw], "all")
        for name in (container, qcow2.name, raw):
            assert list(snapshots.iter_snapshots(name)) == []
        assert store.volumes.recover() == []

    snapshots.create([container, qcow2.name], "all")
    _write(store, container, "second")
    qcow2.write(2)
    taken = snapshots.roll_back([qcow2.name, container], "all")
    assert [each.volume for each in taken] == [qcow2.name, container]
    assert (store.volumes.activate(container).rootfs / "data").read_text() == "first"
    store.volumes.deactivate(container)
    assert qcow2.content() == first
    store.assert_nothing_is_running()


def _write(store: Store, name: VolumeName, text: str) -> None:
    (store.volumes.activate(name).rootfs / "data").write_text(text)
    store.volumes.deactivate(name)


def test_rollback_of_a_group_that_fails_leaves_every_disk_as_it_was(
    qcow2: Disk, disk: Disk
) -> None:
    """The one that was rolled back already included."""
    store, snapshots = disk.store, disk.store.volume_snapshots
    snapshots.create([disk.name, qcow2.name], "all")
    content, other = disk.write(2), qcow2.write(3)
    history_file = store.settings.layout.disk(qcow2.name, clear=False).history
    lose_state(history_file)
    with pytest.raises(CorruptVolumeError, match="state 77"):
        snapshots.roll_back([disk.name, qcow2.name], "all")
    assert (disk.content(), qcow2.content()) == (content, other)
    assert store.volumes.recover() == []
    assert snapshots.remove(qcow2.name, "all")
    assert disk.names() == ["all"]
    store.assert_nothing_is_running()


@pytest.fixture
def machines(disk: Disk) -> Iterator[list[Machine]]:
    """Those that are added end before the disk's file system is unmounted."""
    started: list[Machine] = []
    yield started
    for each in started:
        each.kill()


@pytest.mark.parametrize("moment", ["before", "during", "ended"])
def test_machine_that_starts_before_a_group_is_undone_keeps_what_it_writes(
    qcow2: Disk, disk: Disk, machines: list[Machine], moment: str
) -> None:
    """Its disk stays rolled back, which is told by name, and no recovery takes it back."""
    store, snapshots = disk.store, disk.store.volume_snapshots
    second = _history(qcow2)
    snapshots.create([disk.name, qcow2.name], "all")
    disk.write(2)
    other = qcow2.write(3)
    lose_state(second)

    def start_machine(_: Effect, path: str) -> None:
        undoing = '"restoring": 2' in _history(disk).read_text()
        if not machines and (undoing if moment == "during" else path == str(second)):
            machines.append(Machine(disk.path, disk.format))
            if moment == "ended":
                _end_machine(disk, machines[0])

    with observed(start_machine), pytest.raises(CorruptVolumeError, match="state 77") as caught:
        snapshots.roll_back([disk.name, qcow2.name], "all")
    assert f"; volume {disk.name} stays rolled back to snapshot 'all'" in str(caught.value)
    assert ("closed it again" if moment == "ended" else "open in process") in caught.value.message
    assert caught.value.details["given_up"] == str(disk.name)
    content = disk.content() if moment == "ended" else _end_machine(disk, machines[0])
    assert content[:_WRITTEN] == b"\4" * _WRITTEN
    assert qcow2.content() == other
    other = qcow2.write(5)
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert (disk.content(), qcow2.content(), disk.names()) == (content, other, ["all"])
    store.assert_nothing_is_running()


def test_group_of_which_a_disk_is_read_when_it_is_undone_is_as_it_was_in_the_end(
    qcow2: Disk, disk: Disk
) -> None:
    """Who only reads is waited for, and nothing is given up for them."""
    store, second = disk.store, _history(qcow2)
    store.volume_snapshots.create([disk.name, qcow2.name], "all")
    contents = disk.write(2), qcow2.write(3)
    lose_state(second)
    with ExitStack() as readers:

        def read(_: Effect, path: str) -> None:
            if path == str(second):
                readers.enter_context(disk.path.open("rb"))

        with observed(read), pytest.raises(CorruptVolumeError, match="state 77") as caught:
            store.volume_snapshots.roll_back([disk.name, qcow2.name], "all")
    assert "given_up" not in caught.value.details
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert (disk.content(), qcow2.content(), disk.names()) == (*contents, ["all"])


@pytest.mark.parametrize("full", [False, True])
def test_machine_that_starts_while_its_disk_is_rolled_back_is_left_alone_for_good(
    qcow2: Disk, disk: Disk, machines: list[Machine], monkeypatch: pytest.MonkeyPatch, *, full: bool
) -> None:
    """Also when the rollback of the group is killed before it has told that it failed.

    And when there is no more room than what is kept for removals.
    """
    store, snapshots = disk.store, disk.store.volume_snapshots
    snapshots.create([qcow2.name, disk.name], "all")
    reserve = store.settings.layout.reserve
    if full:
        assert keep_reserve(store.settings.layout)
        monkeypatch.setattr("cas.store.prune.reserve.free_bytes", lambda _: 0)
    note: list[tuple[Path, bytes]] = []

    def start_machine(kind: Effect, path: str) -> None:
        if path != str(_history(disk)):
            return
        if full and machines and kind is Effect.WRITE_FILE and reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not machines:
            machines.append(Machine(disk.path, disk.format))
            note.extend((each, each.read_bytes()) for each in _notes(store))

    with observed(start_machine), pytest.raises(InUseError, match="stays as it was") as caught:
        snapshots.roll_back([qcow2.name, disk.name], "all")
    assert caught.value.details["given_up"] == str(disk.name)
    content = _end_machine(disk, machines[0])
    [(path, text)] = note
    path.write_bytes(text)  # as a kill would have left it
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert (disk.content(), disk.names()) == (content, ["all"])


@pytest.mark.parametrize(("begun", "other_fails"), [(True, False), (False, True)])
def test_machine_that_runs_when_a_group_is_recovered_keeps_what_it_writes(
    qcow2: Disk, disk: Disk, machines: list[Machine], *, begun: bool, other_fails: bool
) -> None:
    """The other volume is rolled back, as the killed operation was about to do, if it can be."""
    store, first = disk.store, qcow2.content()
    store.volume_snapshots.create([disk.name, qcow2.name], "all")
    _note_rollback(disk, qcow2)
    known = _history(disk)
    if begun:
        known.write_text(known.read_text().replace('"restoring": null', '"restoring": 1'))
    qcow2.write(3)
    machines.append(Machine(disk.path, disk.format))
    with _damaged(qcow2) if other_fails else nullcontext():
        told = [each.reason for each in store.volumes.recover()]
    if not other_fails:
        assert any(f"disk volume {disk.name} is open in process" in each for each in told)
    content = _end_machine(disk, machines[0])
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert qcow2.content() == first
    assert (disk.content(), disk.names()) == (content, ["all"])
    assert _notes(store) == []
    store.assert_nothing_is_running()


def test_disk_that_is_activated_before_its_group_could_be_ended_is_not_rolled_back_later(
    qcow2: Disk, store: Store
) -> None:
    """Whatever the machine wrote that was started then is there when the rollback is possible."""
    history = _history(qcow2)
    store.volume_snapshots.create([qcow2.name], "all")
    lose_state(history)
    _note_rollback(qcow2, mark="78")
    store.volumes.activate(qcow2.name)
    content = qcow2.write(2)
    history.write_text(history.read_text().replace('"number": 77', '"number": 1'))
    assert store.volumes.recover() == []
    assert (qcow2.content(), _notes(store)) == (content, [])
    store.volume_snapshots.roll_back([qcow2.name], "all")
    assert qcow2.content() != content


_WRITTEN = 2 * MIB


def _end_machine(disk: Disk, machine: Machine) -> bytes:
    """Let it write, and give the disk's content then."""
    machine.write_and_end(4, size=_WRITTEN)
    return disk.content()


def _history(disk: Disk) -> Path:
    return disk.store.settings.layout.disk(disk.name, clear=disk.request.clear).history


def _notes(store: Store) -> list[Path]:
    return list(store.settings.layout.volume_groups.iterdir())


def _note_rollback(*disks: Disk, mark: str = "2") -> None:
    """Leave what a rollback leaves that is killed before it has done anything."""
    before = {each.name: mark for each in disks}
    layout = disks[0].store.settings.layout
    note_group(layout, Group(GroupAction.ROLL_BACK, "all", drop_later=False, before=before))


@contextmanager
def _damaged(disk: Disk) -> Iterator[None]:
    """Have the history of its snapshots be unreadable for the block."""
    history = _history(disk)
    known = history.read_bytes()
    history.write_text("{")
    yield
    history.write_bytes(known)


def test_activation_ends_an_interrupted_rollback(disk: Disk) -> None:
    """As recovery does; a machine that runs already keeps its disk, also when it has ended.

    Who only reads has nothing to lose, and is waited for.
    """
    store = disk.store
    first = disk.content()
    store.volume_snapshots.create([disk.name], "one")
    second = disk.write(2)
    paths = store.settings.layout.disk(disk.name, clear=disk.request.clear)
    done = paths.history.read_text()
    begun = done.replace('"restoring": null', '"restoring": 1')
    paths.history.write_text(begun)
    assert ["was interrupted" in each for each in _findings(store)] == [True]
    with disk.path.open("rb"):
        with pytest.raises(InUseError, match="is open in process"):
            store.volumes.activate(disk.name)
        assert [each.action for each in store.volumes.recover()] == [RecoveryAction.SKIPPED]
    assert paths.history.read_text() == begun
    with disk.path.open("rb+"):
        assert store.volumes.activate(disk.name).state is VolumeState.INACTIVE
    store.volumes.recover()
    assert store.volumes.recover() == []
    assert disk.content() == second
    paths.history.write_text(begun)
    store.volumes.activate(disk.name)
    assert disk.content() == first
    disk.write(2)
    paths.history.write_text(begun)
    assert [each.action for each in store.volumes.recover()] == [RecoveryAction.FINISHED_SNAPSHOT]
    assert disk.content() == first
    assert store.volumes.recover() == []


def test_copies_of_a_raw_disk_are_counted_once_and_missed_when_gone(
    store: Store, tmp_path: Path
) -> None:
    """One that is lost is told, does no harm to the disk, and can be given up."""
    layout = store.settings.layout
    with mounted_at(layout.clear_volumes, "xfs", tmp_path / "fs"):
        disk = _prepared(store, tmp_path, DiskRequest(None, size=_SIZE, clear=True))
        for name in ("one", "two"):
            store.volume_snapshots.create([disk.name], name)
        assert counted_twice(store.backing, lambda: None)[layout.clear_volumes] == 2 * MIB
        usage = store.volumes.usage(disk.name)
        assert (usage.shared_bytes, usage.snapshot_bytes) == (MIB, 0)
        content = disk.content()
        layout.disk(disk.name, clear=True).snapshot_copy(1).unlink()
        [finding] = _findings(store)
        assert "'one'" in finding
        with pytest.raises(CorruptVolumeError, match="state 1"):
            store.volume_snapshots.roll_back([disk.name], "one")
        assert disk.content() == content
        assert store.volume_snapshots.remove(disk.name, "one")
        assert _findings(store) == []
        assert disk.names() == ["two"]


def test_file_among_the_snapshots_that_is_of_none_is_reported(disk: Disk) -> None:
    """Nothing of ours, so that nobody removes it before the last snapshot goes."""
    snapshots = disk.store.settings.layout.disk(disk.name, clear=disk.request.clear).snapshots
    disk.store.volume_snapshots.create([disk.name], "one")
    strays = [snapshots / "7", snapshots / "notes"]
    strays[0].touch()
    strays[1].mkdir()
    assert [each.partition(": ")[0] for each in _findings(disk.store)] == list(map(str, strays))
    assert disk.store.volumes.recover() == []
    assert strays[0].exists()
    assert disk.store.volume_snapshots.remove(disk.name, "one")
    assert _findings(disk.store) == []


def test_check_goes_on_after_snapshots_that_cannot_be_looked_at(store: Store) -> None:
    """That they cannot is a finding, and those of the next disk are looked at."""
    bad, good = sorted(volume_name() for _ in range(2))
    for name in (bad, good):
        store.volumes.prepare_disk(name, DiskRequest(None, size=MIB, format=DiskFormat.QCOW2))
        store.settings.layout.disk(name, clear=False).snapshots.mkdir(parents=True)
    directory = store.settings.layout.disk(bad, clear=False).snapshots
    # A directory of a process that ended: it is there, and listing it fails.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        subprocess.run(["mount", "--bind", f"/proc/{process.pid}/net", directory], check=True)
    try:
        found = _findings(store)
    finally:
        subprocess.run(["umount", directory], check=True)
    [of_bad] = [each for each in found if each.startswith(str(bad))]
    assert "cannot be looked at: cannot list" in of_bad
    [of_good] = [each for each in found if each.startswith(str(good))]
    assert "was interrupted" in of_good


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("", "x" * 300000, "malformed"),
        ('"number": 1', '"number": 0', "malformed"),
        ('"name": "one"', '"name": "../x"', "malformed"),
        ('"token": "', '"token": "/', "malformed"),
        ('"format_version": 1', '"format_version": 9', "newer"),
        ('"doomed": []', '"doomed": [1]', "twice"),
        ('"next_number": 2', '"next_number": 1', "in use"),
        ('"restoring": null', '"restoring": 2', "not there"),
    ],
)
def test_damaged_history_is_reported_and_the_volume_can_be_removed(
    qcow2: Disk, before: str, after: str, words: str
) -> None:
    """Nothing is done by what it says; without the file the disk can be used."""
    store, path = qcow2.store, qcow2.path
    known = store.settings.layout.disk(qcow2.name, clear=False).history
    known.parent.mkdir(parents=True)
    known.write_text(_HISTORY.replace(before, after) if before else after)
    content = path.read_bytes()
    for act in (
        lambda: store.volume_snapshots.create([qcow2.name], "two"),
        lambda: list(store.volume_snapshots.iter_snapshots(qcow2.name)),
        lambda: store.volumes.activate(qcow2.name),
    ):
        with pytest.raises(CorruptVolumeError, match=words):
            act()
    assert [each.action for each in store.volumes.recover()] == [RecoveryAction.SKIPPED]
    assert any(str(qcow2.name) in each for each in _findings(store))
    assert path.read_bytes() == content
    assert store.volumes.remove(qcow2.name)
    store.assert_nothing_is_running()


def test_states_of_another_volume_in_the_same_file_are_left_alone(
    qcow2: Disk, tmp_path: Path
) -> None:
    """An image made of a volume that has snapshots, prepared under the very name of the volume."""
    store, name = qcow2.store, qcow2.name
    store.volume_snapshots.create([name], "one")
    qcow2.write(2)
    source = add_disk(store, qcow2.path.read_bytes())
    store.volumes.remove(name)
    disk = Disk(store, name, DiskRequest(source), tmp_path)
    store.volumes.prepare_disk(name, disk.request)
    assert disk.names() == []
    second = disk.content()
    store.volume_snapshots.create([name], "one")
    disk.write(3)
    store.volume_snapshots.roll_back([name], "one")
    assert disk.content() == second
    store.volume_snapshots.remove(name, "one")
    listed = subprocess.run(
        ["qemu-img", "snapshot", "-l", str(disk.path)], check=True, capture_output=True, text=True
    ).stdout
    assert listed.count("cas-") == 1


def test_too_many_snapshots_are_refused(qcow2: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk keeps those that it has."""
    monkeypatch.setattr(history, "MAX_DISK_SNAPSHOTS", 1)
    qcow2.store.volume_snapshots.create([qcow2.name], "one")
    with pytest.raises(LimitExceededError, match="has 1 snapshots"):
        qcow2.store.volume_snapshots.create([qcow2.name], "two")
    assert qcow2.names() == ["one"]


def test_without_qemu_img_nothing_is_begun(
    qcow2: Disk, containerd: Containerd, settings: Settings
) -> None:
    """And what is not qcow2 needs none."""
    lacking = open_store(containerd, replace(settings, qemu_img_binary="/absent/qemu-img"))
    with pytest.raises(QemuImgMissingError):
        lacking.volume_snapshots.create([qcow2.name], "one")
    assert qcow2.store.volumes.recover() == []
    assert qcow2.names() == []
    assert qcow2.path.stat().st_uid == 0


def test_room_to_write_disks_anew_is_required_of_all_together(
    store: Store, containerd: Containerd, settings: Settings, tmp_path: Path
) -> None:
    """A snapshot takes next to nothing, and then each full disk may come to take twice as much."""
    directory = settings.layout.clear_volumes
    with mounted_at(directory, "ext4", tmp_path / "fs"):
        request = DiskRequest(None, size=_SIZE, format=DiskFormat.QCOW2, clear=True)
        one, two = (_prepared(store, tmp_path, request) for _ in range(2))
        for each in (one, two):
            each.write(2, size=_SIZE)
        sync_file_system(directory)
        limits = replace(settings.limits, min_free_bytes=free_bytes(directory) - _SIZE * 3 // 2)
        strict = open_store(containerd, replace(settings, limits=limits))
        for names in ([one.name, two.name], [two.name, one.name]):
            with pytest.raises(NoSpaceError, match="beside a snapshot of it"):
                strict.volume_snapshots.create(names, "both")
            assert (one.names(), two.names()) == ([], [])
        strict.volume_snapshots.create([one.name], "one")
        with pytest.raises(NoSpaceError, match="beside a snapshot of it"):
            strict.volume_snapshots.create([two.name], "one")
        thin = replace(limits, thin_disks=True, min_free_bytes=0)
        thin_store = open_store(containerd, replace(settings, limits=thin))
        thin_store.volume_snapshots.create([two.name], "one")
        assert strict.volumes.recover() == []


def test_check_goes_on_after_a_disk_whose_key_is_gone(
    store: Store, loop_ext4: Callable[..., LoopFileSystem]
) -> None:
    """Of one that was encrypted elsewhere and moved in, that is a finding like any other."""
    bad, good = sorted(volume_name() for _ in range(2))
    file_system, clear = loop_ext4(512 * MIB, "encrypt"), store.settings.layout.clear_volumes
    subprocess.run(["mount", "--bind", file_system.path, clear], check=True)
    try:
        for name in (bad, good):
            store.volumes.prepare_disk(name, DiskRequest(None, size=MIB, clear=True))
            store.settings.layout.disk(name, clear=True).snapshots.mkdir(parents=True)
        with _moved_in_and_locked(clear, clear / str(bad)):
            found = _findings(store)
            assert store.volumes.get(bad).state is VolumeState.CORRUPT
    finally:
        subprocess.run(["umount", clear], check=True)
    keyless = [each for each in found if "ENOKEY" in each]
    assert [each.startswith(str(bad)) for each in keyless] == [True, True]  # and its snapshots
    [of_good] = [each for each in found if each.startswith(str(good))]
    assert "was interrupted" in of_good


@contextmanager
def _moved_in_and_locked(root: Path, path: Path) -> Iterator[None]:
    vault = root / "vault"
    vault.mkdir()
    with secret(bytes(64)) as key:
        identifier = add_key(root, key)
    set_policy(vault, identifier)
    path.unlink()
    (vault / "disk").write_bytes(bytes(MIB))
    (vault / "disk").rename(path)
    os.sync()
    wait_for(lambda: remove_key(root, identifier))  # something may look at a file just now
    yield
