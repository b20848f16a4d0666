"""Snapshots of disk volumes, killed at the steps of taking, returning to and removing one.

With ``--every-step`` before each step in turn; otherwise before every second one of a disk, and
every sixth one of a disk and a container together.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from tests.support.disks import MIB, change_disk, content_of
from tests.support.images import layered_image
from tests.support.loopfs import mounted_at
from tests.support.volume_kills import killed_at_each_step, recover
from tests.support.volumes import Store, add_image, open_store, volume_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # for every step


class _Disk:
    """A disk volume of one format, and what it holds."""

    def __init__(self, store: Store, request: DiskRequest, scratch: Path) -> None:
        self.store, self.name, self.scratch = store, volume_name(), scratch
        self.format = request.format or DiskFormat.RAW
        self.path = store.volumes.prepare_disk(self.name, request).rootfs
        self.write(1)

    def write(self, pattern: int) -> bytes:
        change_disk(self.path, self.format, pattern, size=MIB // 2)
        return self.content()

    def content(self) -> bytes:
        assert self.path.stat().st_uid == 0
        return content_of(self.path, self.format, self.scratch)

    def names(self) -> list[str]:
        return [each.name for each in self.store.volume_snapshots.iter_snapshots(self.name)]

    def assert_states(self, *contents: bytes) -> None:
        """Each snapshot has its content, in their order; the disk ends with the last one's."""
        for name, content in zip(self.names(), contents, strict=True):
            self.store.volume_snapshots.roll_back([self.name], name)
            assert self.content() == content


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    return open_store(containerd, settings)


@pytest.fixture
def stride(*, every_step: bool) -> int:
    return 1 if every_step else 2


@pytest.fixture(params=["qcow2", "xfs"])
def disk(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[_Disk]:
    if request.param == "qcow2":
        yield _Disk(store, DiskRequest(None, size=MIB, format=DiskFormat.QCOW2), tmp_path)
        return
    with mounted_at(store.settings.layout.clear_volumes, request.param, tmp_path / "fs"):
        yield _Disk(store, DiskRequest(None, size=MIB, clear=True), tmp_path)


def test_taking_killed_at_any_step_is_done_or_not_after_recovery(disk: _Disk, stride: int) -> None:
    """The disk's content is the same either way, and the snapshot is whole if it is there."""
    snapshots, first = disk.store.volume_snapshots, disk.content()
    snapshots.create([disk.name], "base")
    second = disk.write(2)
    for _ in killed_at_each_step(
        disk.store, "snapshot-create", "new", str(disk.name), stride=stride
    ):
        recover(disk.store)
        assert disk.content() == second
        if disk.names() != ["base"]:
            assert disk.names() == ["base", "new"]
            snapshots.remove(disk.name, "new")
    disk.assert_states(first, second)


def test_rollback_killed_at_any_step_is_done_or_not_after_recovery(
    disk: _Disk, stride: int
) -> None:
    """The old state with the later snapshot, or the new one without it."""
    snapshots, first = disk.store.volume_snapshots, disk.content()
    snapshots.create([disk.name], "base")

    def go_on() -> bytes:
        snapshots.create([disk.name], "later")
        return disk.write(2)

    second = go_on()
    for _ in killed_at_each_step(
        disk.store, "snapshot-rollback", "base", str(disk.name), stride=stride
    ):
        recover(disk.store)
        if "later" not in disk.names():
            assert disk.content() == first
            assert go_on() == second
        assert disk.content() == second
    assert disk.content() == first
    disk.assert_states(first)


def test_removal_killed_at_any_step_is_done_or_not_after_recovery(disk: _Disk, stride: int) -> None:
    """The disk and the other snapshot keep their content, and no state stays behind."""
    snapshots, first = disk.store.volume_snapshots, disk.content()
    snapshots.create([disk.name], "kept")
    second = disk.write(2)
    snapshots.create([disk.name], "gone")
    for _ in killed_at_each_step(disk.store, "snapshot-rm", "gone", str(disk.name), stride=stride):
        recover(disk.store)
        assert disk.content() == second
        if "gone" not in disk.names():
            snapshots.create([disk.name], "gone")
    disk.assert_states(first)


@pytest.mark.parametrize("operation", ["snapshot-create", "snapshot-rollback"])
def test_group_of_kinds_killed_at_any_step_is_done_to_all_or_none(
    store: Store, tmp_path: Path, operation: str, *, every_step: bool
) -> None:
    """A container and a disk, after a recovery."""
    image = layered_image(1)
    add_image(store, image)
    container = volume_name()
    store.volumes.prepare(container, image.name)
    disk = _Disk(store, DiskRequest(None, size=MIB, format=DiskFormat.QCOW2), tmp_path)
    names = [container, disk.name]
    _write(store, container, "first")
    if operation == "snapshot-rollback":
        store.volume_snapshots.create(names, "all")
    before = _write(store, container, "second"), disk.write(2)
    for _ in killed_at_each_step(
        store, operation, "all", *map(str, names), stride=1 if every_step else 6
    ):
        recover(store)
        if operation == "snapshot-create":
            done = [bool(list(store.volume_snapshots.iter_snapshots(name))) for name in names]
        else:
            done = [_read(store, container) != before[0], disk.content() != before[1]]
        assert done in ([True, True], [False, False])
        if done[0] and operation == "snapshot-create":
            for name in names:
                store.volume_snapshots.remove(name, "all")
        elif done[0]:
            _write(store, container, "second")
            disk.write(2)
        assert (_read(store, container), disk.content()) == before


def _read(store: Store, name: VolumeName) -> str:
    text = (store.volumes.activate(name).rootfs / "data").read_text()
    store.volumes.deactivate(name)
    return text


def _write(store: Store, name: VolumeName, text: str) -> str:
    (store.volumes.activate(name).rootfs / "data").write_text(text)
    store.volumes.deactivate(name)
    return text
