"""Runs of the upgradeconverter, from old places to new ones."""

import json
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cas.app import open_upgrade
from cas.errors import InterruptedOperationError, InUseError, NoSpaceError, VolumeHeldError
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.volume_name import VolumeName
from cas.upgrade.items import Outcome
from cas.upgrade.settling import sweep_temporary_copies
from cas.volumes.holds import check_not_held, iter_held
from tests.support.old_device import OldApp, OldDevice, mounted_tmpfs

_MIB = 1024 * 1024


def _results(outcomes: list[Outcome]) -> dict[str, str]:
    return {each.planned.found.path.name: each.result.value for each in outcomes}


def _report(device: OldDevice) -> dict[str, Any]:
    report = json.loads(device.settings.layout.upgrade_report.read_bytes())
    assert isinstance(report, dict)
    return report


def _sparse_disk(path: Path) -> None:
    """Some data, holes, zeros that are written, an owner, a time, an attribute."""
    with path.open("wb") as file:
        file.write(os.urandom(70_000))
        file.seek(3 * _MIB + 17)
        file.write(b"in the middle")
        file.write(bytes(9000))
        file.truncate(20 * _MIB + 5)
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"value")
    os.utime(path, ns=(10**18, 10**18 + 7))


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
    # The size of a directory is the file system's business.
    size = None if stat.S_ISDIR(status.st_mode) else status.st_size
    fields = (status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns)
    return (*fields, attributes, content)


def test_run_of_disks_gives_each_its_volume_unchanged(device: OldDevice) -> None:
    """Byte for byte and attribute for attribute, sparse as before; nothing is left behind."""
    app = device.add(OldApp("a", purge=1, drives=("system", "data")), generation=2)
    device.write_checkpoint(contained=True)
    wanted = {}
    for drive in range(2):
        path = device.disk(f"{app.old_name(drive)}.qcow2")
        _sparse_disk(path)
        wanted[device.new(app, drive, generation=2)] = (_state(path), path.stat().st_blocks)
    assert set(_results(device.run()).values()) == {"moved"}
    for path, (state, blocks) in wanted.items():
        assert _state(path) == state
        assert path.stat().st_blocks <= blocks + 16
    assert not (device.persist / "img").exists()
    assert not (device.persist / "runx").exists()
    assert {path.name for path in device.settings.layout.volumes.iterdir()} == {
        path.name for path in wanted
    }
    assert device.run() == []
    report = _report(device)
    assert report["exit_code"] == 0
    assert len(report["earlier"]) == 2


def test_run_reports_digests_of_what_was_copied(apart: OldDevice) -> None:
    """The digest of the copy, read back, is that of the original."""
    app = apart.add(OldApp("a"))
    apart.write_checkpoint()
    apart.disk(f"{app.old_name()}.raw", b"content")
    [outcome] = apart.run()
    assert outcome.digest_before == outcome.digest_after != ""
    [item] = _report(apart)["items"]
    assert item["digest_after"] == outcome.digest_after
    assert item["action"] == "copy"


def test_run_of_containers_keeps_their_files_and_names_their_snapshot(device: OldDevice) -> None:
    """Links, devices, pipes, owners, an overlay's and a capability's attributes come along."""
    app = device.add(OldApp("a", purge=3))
    device.write_checkpoint()
    path = device.container(app.old_name())
    (path / "file").write_text("x")
    os.link(path / "file", path / "same")
    (path / "link").symlink_to("/nowhere")
    os.mknod(path / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.mkfifo(path / "pipe")
    deep = path / "deep"
    deep.mkdir()
    os.setxattr(deep, "trusted.overlay.opaque", b"y")
    os.setxattr(path / "file", "security.capability", bytes.fromhex("0100000200000000" + "00" * 12))
    os.utime(deep, ns=(5, 6))
    states = {each.name: _state(each) for each in path.iterdir() if each.name != "pipe"}
    assert set(_results(device.run()).values()) == {"moved"}
    volume = device.new(app)
    for name, state in states.items():
        assert _state(volume / name) == state, name
    assert (volume / "file").stat().st_ino == (volume / "same").stat().st_ino
    assert stat.S_ISFIFO((volume / "pipe").stat().st_mode)
    assert (volume / "snapshotid.txt").read_text() == app.old_name()
    assert (volume / "rootfs").is_dir()
    assert not path.exists()


def test_run_never_replaces_what_it_did_not_make(device: OldDevice) -> None:
    """A foreign volume stays as it is, the old data too, and the exit status says so."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    old = device.disk(f"{app.old_name()}.raw", b"old")
    device.new(app).parent.mkdir(parents=True, exist_ok=True)
    device.new(app).write_bytes(b"foreign")
    assert _results(device.run()) == {old.name: "left"}
    assert (old.read_bytes(), device.new(app).read_bytes()) == (b"old", b"foreign")
    assert _report(device)["exit_code"] == 4


def test_run_after_a_downgrade_keeps_what_was_converted(device: OldDevice) -> None:
    """What the old software makes again is reported, and goes only when somebody asks for it."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    name = f"{app.old_name()}.raw"
    device.disk(name, b"first")
    device.run()
    device.new(app).write_bytes(b"used since")
    again = device.disk(name, b"made again")
    [outcome] = device.run()
    assert (outcome.result.value, outcome.planned.reason.value) == ("left", "recreated")
    assert again.read_bytes() == b"made again"
    [outcome] = device.run(remove_recreated=True)
    assert outcome.result.value == "discarded"
    assert not again.exists()
    assert device.new(app).read_bytes() == b"used since"
    assert device.run() == []


@pytest.mark.parametrize("was_clear", [False, True], ids=["made clear", "made encrypted"])
def test_volume_whose_kind_of_text_changed_is_not_converted_again(
    together: OldDevice, was_clear: bool
) -> None:
    """What older software makes again would stand as an empty disk beside the data."""
    app = together.add(OldApp("a"), clear=was_clear)
    together.write_checkpoint()
    name = f"{app.old_name()}.raw"
    together.disk(name, b"data")
    together.run()
    together.response.config.volumes[0].clear_text = not was_clear
    together.write_checkpoint()
    again = together.disk(name, b"made again")
    [outcome] = together.run()
    assert (outcome.result.value, outcome.planned.reason.value) == ("left", "recreated")
    assert again.exists()
    assert not together.new(app, clear=not was_clear).exists()
    assert together.new(app, clear=was_clear).read_bytes() == b"data"


def test_run_without_a_config_holds_all_volumes(device: OldDevice) -> None:
    """No empty volume may take the name of data that cannot be assigned; the next run may."""
    app = device.add(OldApp("a"))
    old = device.disk(f"{app.old_name()}.raw")
    assert _results(device.run()) == {old.name: "left"}
    assert [name for name, _ in iter_held(device.settings.layout)] == ["all"]
    assert _report(device)["exit_code"] == 5
    device.write_checkpoint()
    assert _results(device.run()) == {old.name: "moved"}
    assert list(iter_held(device.settings.layout)) == []


def test_run_with_too_little_room_converts_the_small_and_holds_the_rest(apart: OldDevice) -> None:
    """What does not fit stays, whole; its volume is held until a later run has the room."""
    small, large = apart.add(OldApp("small")), apart.add(OldApp("large"))
    apart.write_checkpoint()
    first = apart.disk(f"{large.old_name()}.raw", os.urandom(20 * _MIB))
    second = apart.disk(f"{small.old_name()}.raw", os.urandom(2 * _MIB))
    vault = apart.persist / "vault"
    with (vault / "filler").open("wb") as filler:
        free = os.statvfs(vault).f_bavail * os.statvfs(vault).f_frsize
        os.posix_fallocate(filler.fileno(), 0, free - 10 * _MIB)
    outcomes = apart.run()
    assert _results(outcomes) == {first.name: "failed", second.name: "moved"}
    assert isinstance(outcomes[-1].error, NoSpaceError)
    assert [name for name, _ in iter_held(apart.settings.layout)] == [f"{large.volume()}#0"]
    assert not list(apart.settings.layout.volumes.glob(".*"))
    (vault / "filler").unlink()
    assert _results(apart.run()) == {first.name: "moved"}
    assert list(iter_held(apart.settings.layout)) == []


def test_run_leaves_sockets_out_and_reports_them(apart: OldDevice) -> None:
    """They are of no use to anybody; everything else of the tree comes along."""
    app = apart.add(OldApp("a"))
    apart.write_checkpoint()
    path = apart.container(app.old_name())
    with socket.socket(socket.AF_UNIX) as bound, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        bound.bind("sock")
    [outcome] = apart.run()
    assert outcome.sockets == (str(path / "sock"),)
    assert (apart.new(app) / "image-config.json").exists()


def test_run_with_a_mount_in_a_container_fails_for_that_one_alone(apart: OldDevice) -> None:
    """Nothing is copied out of, or removed below, what is mounted."""
    mounted, other = apart.add(OldApp("mounted")), apart.add(OldApp("other"))
    apart.write_checkpoint()
    busy, free = apart.container(mounted.old_name()), apart.container(other.old_name())
    subprocess.run(["mount", "-t", "tmpfs", "none", busy / "rootfs"], check=True)
    try:
        assert _results(apart.run()) == {busy.name: "failed", free.name: "moved"}
    finally:
        subprocess.run(["umount", busy / "rootfs"], check=True)
    assert _results(apart.run()) == {busy.name: "moved"}


@pytest.mark.slow
def test_run_of_a_sparse_disk_costs_what_its_data_costs(apart: OldDevice) -> None:
    """Twenty GiB of hole do not fit on the target; they need not."""
    app = apart.add(OldApp("a"))
    apart.write_checkpoint()
    old = apart.disk(f"{app.old_name()}.raw")
    with old.open("r+b") as file:
        for offset in range(0, 20 * 1024, 1024):
            file.seek(offset * _MIB)
            file.write(os.urandom(4096))
        file.truncate(20 * 1024 * _MIB)
    assert _results(apart.run()) == {old.name: "moved"}
    status = apart.new(app).stat()
    assert status.st_size == 20 * 1024 * _MIB
    assert status.st_blocks * 512 < _MIB


def test_run_that_is_stopped_goes_on_later(apart: OldDevice) -> None:
    """Asked to stop in the middle of a copy it undoes that copy, and lets nobody make volumes."""
    first, second = apart.add(OldApp("first")), apart.add(OldApp("second"))
    apart.write_checkpoint()
    olds = [apart.disk(f"{app.old_name()}.raw", os.urandom(3 * _MIB)) for app in (first, second)]
    cancel = Cancellation()

    class Stopping:
        def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
            if item == sorted(olds)[1].name:
                cancel.set()

        def advance(self, action: str, item: str, amount: int) -> None:
            pass

        def finish(self, action: str, item: str) -> None:
            pass

    upgrade = open_upgrade(apart.settings)
    with pytest.raises(InterruptedOperationError):
        list(upgrade.run(cancel=cancel, progress=Stopping()))
    layout = apart.settings.layout
    assert len(list(layout.volumes.iterdir())) == 1
    assert sum(path.exists() for path in olds) == 1
    assert _report(apart)["interrupted"]
    with pytest.raises(VolumeHeldError, match="did not come to its end"):
        check_not_held(layout, VolumeName.parse(apart.new(OldApp("other")).name))
    assert set(_results(apart.run()).values()) == {"moved"}
    assert list(iter_held(layout)) == []
    assert not _report(apart)["interrupted"]


def test_run_adopts_the_volumes_of_other_releases_when_asked(together: OldDevice) -> None:
    """Disks lose their format, containers keep the key of their snapshot, and clear ones move."""
    disk, clear, boxed = OldApp("disk"), OldApp("clear"), OldApp("boxed")
    together.add(clear, clear=True)
    together.write_checkpoint()
    volumes = together.settings.layout.volumes
    volumes.mkdir(parents=True)
    for app in (disk, clear):
        (volumes / f"{together.new(app).name}.qcow2").write_text(app.name)
    (volumes / f"{together.new(boxed).name}.container").mkdir()
    assert {each.result.value for each in together.run()} == {"left"}
    name = VolumeName.parse(together.new(disk).name)
    with pytest.raises(VolumeHeldError, match="adopt-suffixed"):
        check_not_held(together.settings.layout, name)
    used = volumes / f"{together.new(disk).name}.qcow2"
    with used.open("r+b"):
        assert _results(together.run(adopt_suffixed=True))[used.name] == "failed"
    assert _results(together.run(adopt_suffixed=True)) == {used.name: "moved"}
    assert together.new(disk).read_text() == "disk"
    assert together.new(clear, clear=True).read_text() == "clear"
    key = (together.new(boxed) / "snapshotid.txt").read_text()
    assert key == f"{together.new(boxed).name}.container"
    assert list(iter_held(together.settings.layout)) == []
    (volumes / f"{name}.raw").touch()
    together.run()
    assert list(iter_held(together.settings.layout)) == []


def test_run_leaves_old_data_of_a_volume_that_another_release_has_converted(
    together: OldDevice,
) -> None:
    """EVE's own converter made the volume; what a downgrade made again does not take its name."""
    app = together.add(OldApp("a"))
    together.write_checkpoint()
    old = together.disk(f"{app.old_name()}.raw", b"made again")
    volumes = together.settings.layout.volumes
    volumes.mkdir(parents=True)
    (volumes / f"{together.new(app).name}.raw").write_text("in use")
    assert {each.planned.reason.value for each in together.run()} == {"suffixed", "foreign-target"}
    assert old.exists()
    assert not together.new(app).exists()


def test_recovery_removes_a_copy_that_a_killed_run_left(together: OldDevice) -> None:
    """It has no volume's name, and only the next run would otherwise remove it."""
    together.write_checkpoint()
    together.run()
    layout = together.settings.layout
    copy = layout.converting(together.new(OldApp("a")))
    copy.write_text("half")
    with lock(layout.upgrade_lock):
        assert sweep_temporary_copies(layout) == 0
    assert sweep_temporary_copies(layout) == 1
    assert not copy.exists()


def test_run_leaves_a_disk_that_somebody_writes_to(device: OldDevice) -> None:
    """What is copied, or is about to be used under another name, must not change under its user."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    old = device.disk(f"{app.old_name()}.raw")
    with old.open("r+b"):
        [outcome] = device.run()
    assert isinstance(outcome.error, InUseError)
    assert [name for name, _ in iter_held(device.settings.layout)] == [device.new(app).name]
    assert _results(device.run()) == {old.name: "moved"}


def test_run_of_a_container_with_hostile_names_ends_in_a_report(apart: OldDevice) -> None:
    """Names that are no text, deeper than a path may be, links out: copied, or a failure told."""
    hostile, mounted = apart.add(OldApp("hostile")), apart.add(OldApp("mounted"))
    apart.write_checkpoint()
    path = apart.container(hostile.old_name())
    name = os.fsdecode(b"\xff\x1b[2J")
    (path / name).write_text("x")
    (path / "out").symlink_to("/etc")
    with socket.socket(socket.AF_UNIX) as bound, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        bound.bind(b"s\xff")
        for _ in range(150):
            Path("d" * 40).mkdir()
            patch.chdir("d" * 40)
        Path("deepest").write_text("deep")
    busy = apart.container(mounted.old_name()) / name
    busy.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", busy], check=True)
    try:
        results = _results(apart.run())
    finally:
        subprocess.run(["umount", busy], check=True)
    assert results == {hostile.old_name(): "moved", mounted.old_name(): "failed"}
    assert (apart.new(hostile) / name).read_text() == "x"
    assert (apart.new(hostile) / "out").readlink() == Path("/etc")
    told = {Path(item["source"]).name: item for item in _report(apart)["items"]}
    assert told[hostile.old_name()]["sockets"][0].endswith("s\\xff")
    assert told[mounted.old_name()]["error"]["reference"] == "in-use"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(apart.new(hostile))
        for _ in range(150):
            patch.chdir("d" * 40)
        assert Path("deepest").read_text() == "deep"


def test_run_tells_of_an_old_place_that_is_a_link_and_does_not_follow_it(
    together: OldDevice, tmp_path: Path
) -> None:
    """What lies behind it belongs to somebody else."""
    app = together.add(OldApp("a"))
    together.write_checkpoint()
    (tmp_path / f"{app.old_name()}.raw").write_text("elsewhere")
    (together.persist / "img").rmdir()
    (together.persist / "img").symlink_to(tmp_path)
    assert _results(together.run()) == {"img": "left"}
    assert not together.new(app).exists()


def test_plan_says_beforehand_what_room_a_copied_store_needs_at_once(together: OldDevice) -> None:
    """It cannot go in parts: who reads the plan knows what to make room for."""
    database = together.persist / "containerd/io.containerd.metadata.v1.bolt/meta.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(os.urandom(2_000_000))
    together.write_checkpoint()
    with mounted_tmpfs(together.persist / "vault"):
        [planned] = together.plan()
    assert planned.action.value == "copy"
    assert "; its copy needs 2.0" in planned.explanation
    assert planned.explanation.endswith("MB at once before the original goes")
