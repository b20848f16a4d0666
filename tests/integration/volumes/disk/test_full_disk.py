"""Disk volumes on a disk that is, or becomes, full; and on file systems that share blocks."""

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import NoSpaceError, QemuImgError
from cas.fsops.effects import Effect, observed
from cas.fsops.trees import ensure_reserve, free_bytes
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.store.prune.reserve import RESERVE_BYTES
from cas.volumes.disk.looking import pending_growth
from tests.support.daemon import connect, private_daemon, settings_for, unmount_below
from tests.support.disks import MIB, add_disk, change_disk, content_of
from tests.support.loopfs import LoopFileSystem, mounted
from tests.support.volumes import Store, open_store, volume_name

pytestmark = pytest.mark.once  # files of disks: containerd has no part in them


@pytest.fixture
def store(loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str) -> Iterator[Store]:
    """A store on a disk of 96 MiB, of which work leaves 1."""
    settings = settings_for(loop_ext4(96 * MIB).path, containerd_binary)
    limits = replace(settings.limits, min_free_bytes=MIB, thin_disks=True)
    owners = {**settings.owners, "verifier": "nobody"}
    settings = replace(settings, limits=limits, namespace="t", owners=owners)
    with private_daemon(settings), connect(settings) as containerd:
        yield open_store(containerd, settings)
        unmount_below(settings.persist)


def _fill(store: Store, leave: int) -> Path:
    hog = store.settings.persist / "hog"
    with hog.open("ab") as file:
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free_bytes(store.settings.persist))
        with suppress(OSError):
            while True:  # what the file system kept for its own bookkeeping
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, 4096)
        file.truncate(max(0, os.fstat(file.fileno()).st_size - leave))
    return hog


@pytest.mark.parametrize("disk_format", [None, DiskFormat.QCOW2])
def test_disk_that_does_not_fit_is_refused_before_it_is_written(
    store: Store, disk_format: DiskFormat | None
) -> None:
    """The message says how much is missing; with room the same call succeeds."""
    name, request = volume_name(), DiskRequest(add_disk(store, os.urandom(8 * MIB)))
    request = replace(request, format=disk_format)
    hog = _fill(store, leave=12 * MIB)

    with pytest.raises(NoSpaceError, match="preparing volume") as caught:
        store.volumes.prepare_disk(name, request)

    assert 0 < int(str(caught.value.details["missing"])) < 8 * MIB
    store.assert_nothing_is_running()
    hog.unlink()
    assert store.volumes.prepare_disk(name, request).disk is not None


@pytest.mark.parametrize(
    ("compressed", "disk_format"),
    [(False, None), (True, None), (False, DiskFormat.QCOW2), (True, DiskFormat.QCOW2)],
)
def test_disk_that_fills_up_at_any_step_leaves_nothing(
    store: Store, compressed: bool, disk_format: DiskFormat | None
) -> None:
    """Somebody else takes the room that was promised, before each step in turn."""
    data = os.urandom(4 * MIB)
    reference = add_disk(store, gzip.compress(data, 1) if compressed else data)
    request = DiskRequest(reference, size=5 * MIB, format=disk_format)
    failures = 0
    for step in range(60):
        name = volume_name()
        if _prepared_when_full_from(store, step, name, request):
            break
        failures += 1
        (store.settings.persist / "hog").unlink()
        store.volumes.recover()
        store.assert_nothing_is_running()
        assert list(store.volumes.iter_volumes()) == []
    else:
        pytest.fail("it never succeeded")
    assert failures > 3


def _prepared_when_full_from(store: Store, step: int, name: object, request: DiskRequest) -> bool:
    """Prepare; before the given step all room is taken. Whether that came too late to matter."""
    left = step

    def count(effect: Effect, path: str) -> None:
        nonlocal left
        # What lies outside the volumes, locks and the ledger, is in memory elsewhere.
        if "volumes/" in path:
            if left == 0:
                _fill(store, leave=0)
            left -= 1

    try:
        with observed(count):
            store.volumes.prepare_disk(name, request)  # type: ignore[arg-type]
    except (NoSpaceError, QemuImgError):
        return False
    return True


def test_disks_that_could_not_all_be_full_are_refused_unless_allowed(
    store: Store, containerd_binary: str
) -> None:
    """What others may still grow by counts, and what is read-only does not."""
    first = DiskRequest(None, size=48 * MIB)
    store.volumes.prepare_disk(volume_name(), first)
    limits = replace(store.settings.limits, thin_disks=False)

    with connect(store.settings) as containerd:
        strict = open_store(containerd, replace(store.settings, limits=limits)).volumes
        for request in (first, replace(first, format=DiskFormat.QCOW2, clear=True)):
            with pytest.raises(NoSpaceError, match="the other disks 50331648 more"):
                strict.prepare_disk(volume_name(), request)
            store.assert_nothing_is_running()
        strict.prepare_disk(volume_name(), replace(first, read_only=True))
    store.volumes.prepare_disk(volume_name(), first)


@pytest.mark.parametrize("source", ["blank", "raw", "qcow2"])
def test_disk_is_refused_whose_room_another_one_took_while_it_was_made(
    store: Store, source: str
) -> None:
    """Both were let in when there was room for either; the second to be finished is not."""
    limits = replace(store.settings.limits, thin_disks=False)
    early, late = volume_name(), volume_name()
    blob = None if source == "blank" else add_disk(store, os.urandom(MIB))
    disk_format = DiskFormat.QCOW2 if source == "qcow2" else None
    request = DiskRequest(blob, size=48 * MIB, format=disk_format)
    with connect(store.settings) as containerd:
        strict = open_store(containerd, replace(store.settings, limits=limits)).volumes
        met: list[Path] = []

        def let_another_be_made(effect: Effect, path: str) -> None:
            if effect is Effect.FSYNC and str(late) in path and not met:
                met.append(strict.prepare_disk(early, DiskRequest(None, size=48 * MIB)).rootfs)

        with (
            observed(let_another_be_made),
            pytest.raises(NoSpaceError, match="the other disks 50331648 more"),
        ):
            strict.prepare_disk(late, request)

        store.assert_nothing_is_running()
        assert [status.name for status in strict.iter_volumes()] == [early]
        assert strict.remove(early)
        assert strict.prepare_disk(late, request).disk is not None


def test_removal_works_on_a_full_disk(store: Store) -> None:
    """It gives room, and so must not need any."""
    name = volume_name()
    store.volumes.prepare_disk(name, DiskRequest(add_disk(store, os.urandom(4 * MIB))))
    _fill(store, leave=0)

    assert store.volumes.remove(name)

    room = os.statvfs(store.settings.persist)
    assert room.f_bfree * room.f_frsize >= 3 * MIB


def test_snapshot_is_removed_on_a_full_disk_and_none_taken_or_returned_to(
    store: Store, tmp_path: Path
) -> None:
    """Removing makes room; what needs some is refused, and the disk is as it was."""
    name, snapshots = volume_name(), store.volume_snapshots
    path = store.volumes.prepare_disk(name, DiskRequest(None, MIB, DiskFormat.QCOW2)).rootfs
    snapshots.create([name], "base")
    change_disk(path, DiskFormat.QCOW2, 2)
    before = content_of(path, DiskFormat.QCOW2, tmp_path)
    reserve = store.settings.layout.reserve
    reserve.parent.mkdir(parents=True, exist_ok=True)
    assert ensure_reserve(reserve, RESERVE_BYTES)
    _fill(store, leave=0)

    for act in (snapshots.create, snapshots.roll_back):
        with pytest.raises(NoSpaceError):
            act([name], "new" if act == snapshots.create else "base")
    assert [each.name for each in snapshots.iter_snapshots(name)] == ["base"]
    assert snapshots.remove(name, "base")
    assert list(snapshots.iter_snapshots(name)) == []
    (store.settings.persist / "hog").unlink()
    assert content_of(path, DiskFormat.QCOW2, tmp_path) == before
    assert store.volumes.recover() == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_disk_shares_the_blocks_of_its_image_where_the_file_system_can(
    tmp_path: Path, containerd_binary: str, kind: str
) -> None:
    """A volume of much data takes next to no room, and is on its own all the same."""
    data = os.urandom(12 * MIB)
    with mounted(kind, tmp_path) as disk_path:
        settings = settings_for(disk_path, containerd_binary)
        with private_daemon(settings), connect(settings) as containerd:
            store = open_store(containerd, settings)
            request = DiskRequest(add_disk(store, data), size=13 * MIB)
            os.sync()
            free = free_bytes(disk_path)

            path = store.volumes.prepare_disk(volume_name(), request).rootfs

            os.sync()
            assert free_bytes(disk_path) > free - 6 * MIB
            layout, limits = settings.layout, settings.limits
            assert pending_growth(layout, limits, layout.volumes) == 13 * MIB
            with path.open("r+b") as disk:
                disk.write(b"changed")
            other = store.volumes.prepare_disk(volume_name(), request).rootfs
            assert other.read_bytes() == data + bytes(MIB)
            unmount_below(settings.persist)
