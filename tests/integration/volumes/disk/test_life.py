"""Disk volumes that are open, removed, interrupted, found again, damaged."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas.errors import CorruptVolumeError, InterruptedOperationError, InUseError
from cas.model.cancellation import Cancellation
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.store.check.check import Check
from cas.store.check.findings import Finding, Problem
from cas.volumes.volumes import RecoveryAction, VolumeState
from tests.support.disks import MIB, add_disk
from tests.support.images import BuiltImage
from tests.support.volumes import Recorder, Store, volume_name

pytestmark = pytest.mark.once  # files of disks: containerd has no part in them

BLANK = DiskRequest(None, size=MIB)


@contextmanager
def held_by_a_machine(path: Path) -> Iterator[None]:
    """Open a disk as qemu does: with read locks of the open file on single bytes."""
    with path.open("r+b") as file:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
        fcntl.fcntl(file.fileno(), 37, lock)  # F_OFD_SETLK
        yield


def test_disk_of_a_running_machine_is_active_and_stays(store: Store) -> None:
    """Refused, it stays as it is; forced, the machine keeps what it has open."""
    name = volume_name()
    path = store.volumes.prepare_disk(name, BLANK).rootfs

    with held_by_a_machine(path):
        assert store.volumes.get(name).state is VolumeState.ACTIVE
        assert store.volumes.activate(name).state is VolumeState.ACTIVE
        for act in (store.volumes.deactivate, store.volumes.remove):
            with pytest.raises(InUseError, match=str(os.getpid())):
                act(name)
        assert path.exists()
        assert store.volumes.remove(name, force=True)
    assert not path.exists()


def test_qemu_itself_is_noticed(store: Store) -> None:
    """The lock that it takes is the one that is looked for."""
    name = volume_name()
    request = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2)
    path = store.volumes.prepare_disk(name, request).rootfs
    command = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as machine:
        assert machine.stdin is not None
        assert machine.stdout is not None
        machine.stdin.write(b"length\n")
        machine.stdin.flush()
        assert b"1 MiB" in machine.stdout.readline()
        assert store.volumes.get(name).state is VolumeState.ACTIVE
        with pytest.raises(InUseError, match="qemu-io"):
            store.volumes.remove(name)
        machine.stdin.close()
    assert store.volumes.deactivate(name).state is VolumeState.INACTIVE
    assert store.volumes.remove(name)


def test_disk_that_is_open_without_a_lock_is_not_removed(store: Store) -> None:
    """Not every program locks."""
    name = volume_name()
    path = store.volumes.prepare_disk(name, BLANK).rootfs

    with path.open("rb"):
        assert store.volumes.get(name).state is VolumeState.INACTIVE
        with pytest.raises(InUseError):
            store.volumes.remove(name)
    assert store.volumes.remove(name)


def test_disk_that_is_open_out_of_sight_is_not_removed(store: Store) -> None:
    """Such as under another name, where no list of open files shows the disk's own."""
    name = volume_name()
    path = store.volumes.prepare_disk(name, BLANK).rootfs
    other = path.parents[2] / "other"
    other.hardlink_to(path)

    with other.open("rb"), pytest.raises(InUseError, match="process unknown"):
        store.volumes.remove(name)
    other.unlink()
    assert store.volumes.remove(name)


def test_cancelled_preparation_leaves_nothing(store: Store) -> None:
    """In the middle of the copy."""
    stop = Cancellation()
    progress = Recorder(on_start=lambda _: stop.set())
    reference = add_disk(store, os.urandom(3 * MIB))

    with pytest.raises(InterruptedOperationError):
        store.volumes.prepare_disk(
            volume_name(), DiskRequest(reference), cancel=stop, progress=progress
        )

    assert progress.started
    store.assert_nothing_is_running()
    assert list(store.volumes.iter_volumes()) == []


@pytest.mark.parametrize("clear", [False, True])
def test_recovery_undoes_and_finishes_what_was_left(store: Store, clear: bool) -> None:
    """Hidden files and records of nothing go, complete volumes and running work stay."""
    whole, half, removed, working = (volume_name(number) for number in range(4))
    layout = store.settings.layout
    request = DiskRequest(None, size=MIB, clear=clear)
    kept = store.volumes.prepare_disk(whole, request)
    for name in (half, removed, working):
        store.volumes.prepare_disk(name, request)
        paths = layout.disk(name, clear=clear)
        paths.file.rename(paths.removing if name == removed else paths.preparing)
    layout.disk(half, clear=clear).reformatting.touch()

    with store.locks.volume(working):
        problems = {each.object for each in _findings(store)}
        assert problems == {
            *map(str, (layout.disk(half, clear=clear).preparing,
                       layout.disk(half, clear=clear).reformatting,
                       layout.disk(half, clear=clear).record,
                       layout.disk(removed, clear=clear).removing,
                       layout.disk(removed, clear=clear).record)),
        }  # fmt: skip
        actions = [each.action for each in store.volumes.recover()]
    assert RecoveryAction.UNDID_PREPARATION in actions
    assert RecoveryAction.FINISHED_REMOVAL in actions
    assert RecoveryAction.SKIPPED in actions
    assert layout.disk(working, clear=clear).preparing.exists()
    assert [each.action for each in store.volumes.recover()] == [RecoveryAction.UNDID_PREPARATION]
    assert store.volumes.recover() == []
    assert list(store.volumes.iter_volumes()) == [kept]
    assert list(_findings(store)) == []
    store.assert_nothing_is_running()


def test_leftovers_of_the_other_kind_are_in_nobodys_way(store: Store, image: BuiltImage) -> None:
    """A killed preparation or removal of a container, or of a disk, under the same name."""
    name = volume_name()
    layout, request = store.settings.layout, DiskRequest(None, size=MIB)
    for _ in range(2):
        store.volumes.prepare_disk(name, request).rootfs.rename(layout.volume_removing(name))
        (layout.volumes / f".{name}.preparing").write_bytes(b"half")
        root = store.volumes.prepare(name, image.name).rootfs
        assert root.is_dir()
        root.parent.rename(layout.volume_removing(name))
        layout.volume_preparing(name).mkdir()
    assert store.volumes.prepare_disk(name, request).disk is not None
    assert store.volumes.remove(name)
    store.volumes.recover()
    store.assert_nothing_is_running()
    assert str(name) not in store.snapshots()


def _findings(store: Store) -> list[Finding]:
    check = Check(store.backing, platform=store.images.platform, judge=store.volumes.iter_volumes)
    return [each for each in check.run() if each.problem is Problem.VOLUME_LEFTOVER]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"{", "malformed"),
        (b"x" * 70000, "malformed"),
        (b'{"format_version": 2}', "malformed"),
    ],
)
def test_disk_with_a_damaged_record_is_reported_and_can_be_removed(
    store: Store, record: bytes, words: str
) -> None:
    """Its data are untouched until then."""
    name = volume_name()
    store.volumes.prepare_disk(name, BLANK)
    store.settings.layout.disk(name, clear=False).record.write_bytes(record)

    status = store.volumes.get(name)
    assert status.state is VolumeState.CORRUPT
    assert status.problem is not None
    assert words in status.problem
    with pytest.raises(CorruptVolumeError, match=words):
        store.volumes.activate(name)
    with pytest.raises(CorruptVolumeError, match=words):
        store.volumes.prepare_disk(name, BLANK)
    assert store.volumes.remove(name)
    store.assert_nothing_is_running()


def test_qcow2_volume_whose_header_is_destroyed_is_corrupt(store: Store) -> None:
    """What is not of the format that the record says is no volume of ours any more."""
    name = volume_name()
    request = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2)
    path = store.volumes.prepare_disk(name, request).rootfs
    with path.open("r+b") as file:
        file.write(bytes(8))

    status = store.volumes.get(name)

    assert status.state is VolumeState.CORRUPT
    assert status.problem is not None
    assert "said to be qcow2, and its content is raw" in status.problem
    [(listed, error)] = store.volumes.activate_all()
    assert listed == name
    assert isinstance(error, CorruptVolumeError)


def test_image_of_a_disk_volume_may_be_removed_and_collected(store: Store) -> None:
    """Nothing refers to it any more, so that a prune may take it."""
    reference = add_disk(store, b"disk" * 1000)
    name = volume_name()
    path = store.volumes.prepare_disk(name, DiskRequest(reference)).rootfs

    assert store.images.remove(reference)
    store.backing.leases.collect_garbage()

    assert [blob for blob in store.backing.content.iter_blobs() if blob.size == 4000] == []
    assert path.read_bytes() == b"disk" * 1000
