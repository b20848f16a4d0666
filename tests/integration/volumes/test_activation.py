"""Volumes are mounted and unmounted, without ever hiding or losing anything."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cas.errors import CorruptVolumeError, InUseError, MountPointError, VolumeNotFoundError
from cas.fsops.mounts import find_mount, mount
from cas.volumes.volumes import VolumeState
from tests.support.images import BuiltImage
from tests.support.volumes import Store, volume_name


def _umount(path: Path) -> None:
    subprocess.run(["umount", path], check=True)


def test_activate_mounts_without_devices(store: Store, image: BuiltImage) -> None:
    """Device nodes of an image are no devices of this machine."""
    status = store.volumes.prepare(volume_name(), image.name, activate=True)
    assert status.state is VolumeState.ACTIVE
    assert (status.rootfs / "dev/null").is_char_device()
    with pytest.raises(PermissionError):
        (status.rootfs / "dev/null").write_text("x")


def test_activate_and_deactivate_are_idempotent(store: Store, image: BuiltImage) -> None:
    """Once is as good as twice: one mount, then none."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    for _ in range(2):
        assert store.volumes.activate(name).state is VolumeState.ACTIVE
    for _ in range(2):
        assert store.volumes.deactivate(name).state is VolumeState.INACTIVE
    assert find_mount(store.settings.layout.volume_rootfs(name)) is None


def test_activate_shows_what_was_written_before(store: Store, image: BuiltImage) -> None:
    """Data, deletions and changes of the image's files."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    (root / "new").write_text("data")
    (root / "etc/passwd").unlink()
    (root / "opt/app/new").write_text("changed")
    store.volumes.deactivate(name)
    assert list(root.iterdir()) == []
    store.volumes.activate(name)
    assert (root / "new").read_text() == "data"
    assert not (root / "etc/passwd").exists()
    assert (root / "opt/app/new").read_text() == "changed"


def test_volumes_of_one_image_do_not_see_each_other(store: Store, image: BuiltImage) -> None:
    """Only the layers below are shared."""
    first = store.volumes.prepare(volume_name(), image.name, activate=True)
    second = store.volumes.prepare(volume_name(), image.name, activate=True)
    (first.rootfs / "etc/passwd").write_text("changed")
    assert "root:x:0:0" in (second.rootfs / "etc/passwd").read_text()


def test_activate_of_unknown_volume_is_not_found(store: Store) -> None:
    """Also for deactivate, get and usage."""
    name = volume_name()
    for act in (store.volumes.activate, store.volumes.deactivate, store.volumes.get):
        with pytest.raises(VolumeNotFoundError, match=str(name)):
            act(name)
    with pytest.raises(VolumeNotFoundError):
        store.volumes.usage(name)


def test_activate_over_files_is_refused(store: Store, image: BuiltImage) -> None:
    """A mount would hide them."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name).rootfs
    (root / "stray").write_text("x")
    with pytest.raises(MountPointError, match="stray"):
        store.volumes.activate(name)
    assert find_mount(root) is None


def test_activate_over_foreign_mount_is_refused(store: Store, image: BuiltImage) -> None:
    """Neither used nor covered nor removed; removal refuses too unless forced."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name).rootfs
    subprocess.run(["mount", "-t", "tmpfs", "foreign", root], check=True)
    with pytest.raises(MountPointError, match="foreign"):
        store.volumes.activate(name)
    with pytest.raises(MountPointError, match="foreign"):
        store.volumes.deactivate(name)
    with pytest.raises(MountPointError, match="foreign"):
        store.volumes.remove(name)
    status = store.volumes.get(name)
    assert (status.state, status.problem is not None) == (VolumeState.CORRUPT, True)
    _umount(root)
    assert store.volumes.activate(name).state is VolumeState.ACTIVE


def test_activate_of_volume_mounted_elsewhere_is_refused(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    """The kernel would allow two mounts of one writable layer, and lose data."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    mount(store.backing.snapshots.mounts(str(name)), tmp_path)
    try:
        with pytest.raises(InUseError, match=str(tmp_path)):
            store.volumes.activate(name)
    finally:
        _umount(tmp_path)
    assert store.volumes.activate(name).state is VolumeState.ACTIVE


def test_activate_without_mount_point_is_corrupt(
    store: Store, image: BuiltImage, tmp_path: Path
) -> None:
    """Missing, or a link that leads elsewhere."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name).rootfs
    root.rmdir()
    with pytest.raises(CorruptVolumeError, match="mount point"):
        store.volumes.activate(name)
    assert store.volumes.get(name).state is VolumeState.CORRUPT
    root.symlink_to(tmp_path)
    with pytest.raises(CorruptVolumeError, match="mount point"):
        store.volumes.activate(name)


def test_activate_without_snapshot_is_corrupt(store: Store, image: BuiltImage) -> None:
    """The message says that the data is gone."""
    name = volume_name()
    store.volumes.prepare(name, image.name)
    store.backing.snapshots.remove(str(name))
    with pytest.raises(CorruptVolumeError, match="gone"):
        store.volumes.activate(name)
    status = store.volumes.get(name)
    assert status.state is VolumeState.CORRUPT
    assert status.record is not None


def test_deactivate_of_busy_volume_names_the_user(store: Store, image: BuiltImage) -> None:
    """It stays mounted and usable."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    user = subprocess.Popen(["sleep", "300"], cwd=root)
    try:
        with pytest.raises(InUseError, match=str(user.pid)):
            store.volumes.deactivate(name)
        assert store.volumes.get(name).state is VolumeState.ACTIVE
    finally:
        user.kill()
        user.wait()
    assert store.volumes.deactivate(name).state is VolumeState.INACTIVE


def test_activate_all_goes_on_after_a_failure(store: Store, image: BuiltImage) -> None:
    """Each volume gets its own answer, as after a reboot."""
    names = sorted(volume_name(number) for number in range(3))
    for name in names:
        store.volumes.prepare(name, image.name)
    (store.settings.layout.volume_rootfs(names[1]) / "stray").touch()
    outcomes = dict(store.volumes.activate_all())
    assert list(outcomes) == names
    assert isinstance(outcomes[names[1]], MountPointError)
    assert [outcomes[names[0]], outcomes[names[2]]] == [None, None]
    states = [status.state for status in store.volumes.iter_volumes()]
    assert states == [VolumeState.ACTIVE, VolumeState.INACTIVE, VolumeState.ACTIVE]
    assert [error for _, error in store.volumes.deactivate_all()] == [None, None, None]
    states = [status.state for status in store.volumes.iter_volumes()]
    assert states == [VolumeState.INACTIVE] * 3


def test_iter_volumes_reports_damage_and_foreign_entries(store: Store, image: BuiltImage) -> None:
    """Nothing in the directory stays unmentioned."""
    good, bad = volume_name(1), volume_name(2)
    for name in (good, bad):
        store.volumes.prepare(name, image.name)
    (store.settings.layout.volume(bad) / "volume.json").unlink()
    disk = store.settings.layout.volumes / f"{volume_name()}.qcow2"
    disk.touch()
    found = {status.name: status.state for status in store.volumes.iter_volumes()}
    assert found == {good: VolumeState.INACTIVE, bad: VolumeState.CORRUPT}
    assert [record.name for record in store.volumes.iter_records()] == [good]
    assert [entry.path for entry in store.volumes.iter_foreign()] == [disk]


def test_usage_splits_own_and_shared(store: Store, image: BuiltImage) -> None:
    """What was written is the volume's own; the layers below are counted once."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    before = store.volumes.usage(name)
    (root / "data").write_bytes(b"x" * 1_000_000)
    subprocess.run(["sync", "-f", root], check=True)
    after = store.volumes.usage(name)
    assert after.own_bytes - before.own_bytes >= 1_000_000
    assert after.inodes == before.inodes + 1
    layers = sum(store.backing.snapshots.usage(each).size for each in image.chain_ids)
    assert after.shared_bytes == before.shared_bytes == layers


def test_program_of_the_image_runs_by_chroot(store: Store, image: BuiltImage) -> None:
    """The volume is a root file system in which programs run and leave their data."""
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    script = "cat /opt/app/new; id -u app; mkdir -p /var/lib && echo written > /var/lib/data"
    done = subprocess.run(
        ["chroot", root, "/bin/sh", "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("hello from the image\n1000\n")
    store.volumes.deactivate(name)
    store.volumes.activate(name)
    assert (root / "var/lib/data").read_text() == "written\n"


def test_program_of_the_image_runs_by_runc(store: Store, image: BuiltImage, tmp_path: Path) -> None:
    """A container runtime takes the mounted volume as its root file system."""
    runc = shutil.which("runc")
    assert runc, "runc is not installed; install the package runc"
    name = volume_name()
    root = store.volumes.prepare(name, image.name, activate=True).rootfs
    _write_runtime_spec(tmp_path, root, ["/bin/sh", "-c", "id -u; echo ran > /from-container"])
    done = subprocess.run(
        [runc, "--root", tmp_path / "state", "run", f"cas-{name.uuid}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert (root / "from-container").read_text() == "ran\n"
    assert store.volumes.deactivate(name).state is VolumeState.INACTIVE


def _write_runtime_spec(bundle: Path, root: Path, command: list[str]) -> None:
    document = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": str(root), "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    }
    (bundle / "config.json").write_text(json.dumps(document))
