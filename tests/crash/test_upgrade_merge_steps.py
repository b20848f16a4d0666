"""A merge of stores that is killed, or finds the disk full, at one of its steps.

Each begins with the whole stores. With ``--every-step`` at each step in turn, otherwise at some.
"""

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.daemon.orphan import end_orphan
from cas.model.volume_name import VolumeName
from cas.volumes.holds import iter_held
from tests.support import merge_worker
from tests.support.daemon import persist_directory, private_daemon
from tests.support.forked import exit_status
from tests.support.images import layered_image
from tests.support.loopfs import LoopFileSystem
from tests.support.old_device import OldDevice, clear_settings
from tests.support.old_store import OldContainer, make_old_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]  # for every step

_DISK_BYTES = 96 * 1024 * 1024
_SAMPLE = 1
_STORE = "containerd"


class _Stores:
    """A disk on which two stores are to become one, again and again.

    Args:
        disk: Where.
        template: What it holds at the beginning.
        binary: containerd.
    """

    def __init__(self, disk: LoopFileSystem, template: Path, binary: str) -> None:
        self.disk = disk
        self.settings = replace(clear_settings(disk.path), containerd_binary=binary)
        self._template = template
        device = OldDevice(template)
        self._other = layered_image(1, name="example.com/other:1", seed="other")
        with private_daemon(replace(device.settings, containerd_binary=binary)) as daemon:
            Case.open(daemon.settings).close()
        shutil.rmtree(template / "run")
        self._container: OldContainer = make_old_store(
            device, template / _STORE, binary, others=[self._other]
        )
        device.write_checkpoint()
        self._volume = VolumeName.parse(device.new(self._container.app).name)
        blobs = (template / _STORE).glob("*content*/blobs/sha256/*")
        self._blobs = {str(disk.path / path.relative_to(template)) for path in blobs}

    def renew(self) -> None:
        for path in self.disk.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(self._template, self.disk.path, symlinks=True, dirs_exist_ok=True)

    def upgrade(self, step: int | None = None, *, full: bool = False) -> int:
        """Give the number of steps that it took; as many as it was to live if it was killed."""
        count = self._template.with_name("count")
        disk = self.disk if full else None
        status = exit_status(merge_worker.main, self.settings, count, step, disk)
        if status == 0:
            return int(count.read_text())
        assert step is not None
        assert not full
        assert status == -signal.SIGKILL
        return step

    def end_orphans(self) -> None:
        for root in (self.settings.layout.case, self.disk.path / _STORE):
            end_orphan(root)

    def assert_merged(self) -> None:
        settings = self.settings
        with private_daemon(settings), Case.open(settings) as case:
            names = {image.name for image in case.images.iter_images()}
            assert names == {self._container.image.name, self._other.name}
            root = case.volumes.activate(self._volume).rootfs
            assert (root / "written").read_text() == "by the app"
            case.volumes.deactivate(self._volume)
            assert case.check_store(read_data=True).findings == ()
        assert not (self.disk.path / _STORE).exists()
        assert list(iter_held(settings.layout)) == []
        merged = json.loads(settings.layout.upgrade_report.read_bytes())["merged"]
        told = {(each["kind"], each["name"]): each["result"] for each in merged}
        assert {told.pop(("blob", name)) for name in self._blobs} == {"moved"}
        assert {told.pop(("snapshot", layer)) for layer in self._container.image.chain_ids} == {
            "discarded"
        }
        assert set(told.values()) <= {"moved", "discarded"}


@pytest.fixture
def stores(loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str) -> Iterator[_Stores]:
    disk = loop_ext4(_DISK_BYTES)
    with persist_directory() as directory:
        template = directory / "t"
        template.mkdir()
        made = _Stores(disk, template, containerd_binary)
        yield made
        made.end_orphans()


@pytest.mark.parametrize("full", [False, True], ids=["killed", "full"])
def test_merge_broken_off_at_any_step_is_completed_by_the_next(
    stores: _Stores, crash_seed: int, *, full: bool, every_step: bool
) -> None:
    """Nothing is lost and no file is untold, wherever the first run ended."""
    stores.renew()
    count = stores.upgrade()
    stores.assert_merged()
    steps = list(range(count))
    if not every_step:
        steps = random.Random(f"{crash_seed}-{full}").sample(steps, _SAMPLE)
    for step in steps:
        stores.renew()
        # Not all make as many: how often is asked whether a containerd answers, nobody can tell.
        done = stores.upgrade(step, full=full)
        assert full or done <= step
        stores.disk.make_room()
        stores.upgrade()
        stores.assert_merged()
