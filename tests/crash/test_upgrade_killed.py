"""Upgrades killed before each of their changes in turn, and run again.

However often it is killed: at the end every volume is there, equal to what it was, nothing else is
lost or left, and the report accounts for all of it. In between each volume is in its old place, in
its new one, or whole in both.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from cas.fsops.replica import content_digest
from cas.upgrade.device import is_vacant
from tests.support.killing import kill_at
from tests.support.old_device import OldApp, OldDevice, mounted_tmpfs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_STEPS = 500
_FILES = ("image-config.json",)

MakeDevice = Callable[[], AbstractContextManager[OldDevice]]


@pytest.fixture(params=["together", "apart"])
def make_device(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDevice:
    """A factory of devices: vault and old places on one file system, or on two.

    In memory: what is lost with the power is another test's subject.
    """

    @contextmanager
    def make() -> Iterator[OldDevice]:
        with ExitStack() as stack:
            stack.enter_context(mounted_tmpfs(tmp_path))
            (tmp_path / "vault").mkdir()
            if request.param == "apart":
                stack.enter_context(mounted_tmpfs(tmp_path / "vault"))
            yield OldDevice(tmp_path)

    return make


def _fill(device: OldDevice) -> dict[Path, tuple[Path, str]]:
    """Give old place, new place and digest of each volume."""
    app = device.add(OldApp("a", drives=("one", "two")))
    clear = device.add(OldApp("clear"), clear=True)
    boxed = device.add(OldApp("boxed", purge=2))
    bare = device.add(OldApp("bare"))
    device.write_checkpoint()
    disks = {
        device.disk(f"{app.old_name(n)}.raw", os.urandom(5000)): device.new(app, n) for n in (0, 1)
    }
    disks[device.disk(f"{clear.old_name()}.qcow2", b"clear")] = device.new(clear, clear=True)
    container = device.container(boxed.old_name())
    (container / "sub").mkdir()
    (container / "sub" / "file").write_text("x")
    # What the conversion adds is there already, so that old and new are the same.
    (container / "snapshotid.txt").write_text(boxed.old_name())
    disks[container] = device.new(boxed)
    container = device.container(bare.old_name())
    (container / "rootfs").rmdir()
    disks[container] = device.new(bare)
    store = device.persist / "containerd"
    (store / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (store / "io.containerd.metadata.v1.bolt" / "meta.db").write_text("metadata")
    store.chmod(0o700)
    disks[store] = device.settings.layout.case
    digests = {old: (new, _digest(old)) for old, new in disks.items()}
    return {**digests, container: (device.new(bare), "")}


def _digest(path: Path) -> str:
    return content_digest(path, advance=lambda _: None)


def _assert_whole(path: Path, digest: str) -> None:
    """One without a digest is the container that gets something: all that a volume needs."""
    if digest:
        assert _digest(path) == digest
    else:
        assert {each.name for each in path.iterdir()} == {*_FILES, "rootfs", "snapshotid.txt"}


def _assert_nothing_is_lost(volumes: dict[Path, tuple[Path, str]]) -> None:
    for old, (new, digest) in volumes.items():
        if new.exists() and not is_vacant(new):
            _assert_whole(new, digest)
        elif digest:
            assert _digest(old) == digest
        else:
            assert (old / _FILES[0]).exists()


def _assert_done(device: OldDevice, volumes: dict[Path, tuple[Path, str]]) -> None:
    for old, (new, digest) in volumes.items():
        _assert_whole(new, digest)
        assert not old.exists()
    layout = device.settings.layout
    left = {*layout.volumes.iterdir(), *layout.clear_volumes.iterdir()}
    assert left == {new for new, _ in volumes.values()} - {layout.case}
    assert not layout.converting(layout.case).exists()
    old_places = {"img", "runx", "containerd", "downloads"}
    assert old_places.isdisjoint(path.name for path in device.persist.iterdir())
    assert list(layout.held_volumes.glob("*")) == []
    temporary = device.persist.rglob("*.cas-temporary")
    assert [path for path in temporary if path.parent != layout.run] == []
    report = json.loads(layout.upgrade_report.read_bytes())
    told = {each["source"] for each in report["earlier"]}
    told |= {str(Path(each["source"]).relative_to(device.persist)) for each in report["items"]}
    assert told == {str(old.relative_to(device.persist)) for old in volumes}


def test_run_killed_at_any_step_is_completed_by_the_next(make_device: MakeDevice) -> None:
    """One kill, at each change that a run makes; then one run to the end."""
    for step in range(_STEPS):
        with make_device() as device:
            volumes = _fill(device)
            killed = kill_at(step, device.run)
            _assert_nothing_is_lost(volumes)
            device.run()
            _assert_done(device, volumes)
        if not killed:
            assert step > 50
            return
    pytest.fail("the run did not end")
