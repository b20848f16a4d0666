"""The mount table, mounting and unmounting."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import InUseError, LimitExceededError, StorageError
from cas.fsops import mounts
from cas.fsops.mounts import find_mount, holders, iter_mounts, mounts_below, unmount
from cas.model.records import Mount
from tests.unit.fsops.conftest import Effects, entries

EffectsOf = Callable[[Callable[[], object]], Effects]
Traced = Callable[..., list[str]]

ODD_NAMES = [
    "plain",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8#7",
    "a space",
    "a:colon",
    "a,comma",
    "a\\backslash",
    "a\ttab",
    "a\nnewline",
    "eq=ual",
    "ümläut",
    os.fsdecode(b"not-utf8-\xff"),
    "octal\\040",
]


class Layers:
    """Directories for an overlay: each layer has one file of its own and one they all have."""

    def __init__(self, base: Path, count: int) -> None:
        self.base = base
        self.lower = [base / str(number) / "fs" for number in range(count, 0, -1)]
        for layer in self.lower:
            layer.mkdir(parents=True)
            (layer / f"only-{layer.parent.name}").touch()
            (layer / "top").write_text(layer.parent.name)
        self.upper, self.work = base / "active" / "fs", base / "active" / "work"
        self.upper.mkdir(parents=True)
        self.work.mkdir()

    def mount(self, *more: str, writable: bool = True) -> Mount:
        """Describe the mount as the snapshotter does."""
        options = ["index=off", *more]
        if writable:
            options += [f"workdir={self.work}", f"upperdir={self.upper}"]
        options.append("lowerdir=" + ":".join(map(str, self.lower)))
        return Mount("overlay", "overlay", tuple(options))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to mount, with a name as volumes have."""
    path = tmp_path / "6ba7b810-9dad-11d1-80b4-00c04fd430c8#0" / "rootfs"
    path.mkdir(parents=True)
    return path


def bind(source: Path, *options: str) -> Mount:
    """Describe a bind mount as the snapshotter does."""
    return Mount("bind", str(source), options or ("rw", "rbind"))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_mount_point_with_odd_name_is_found_by_that_name(tmp_path: Path, name: str) -> None:
    """What the kernel escapes is read back."""
    path = tmp_path / name
    path.mkdir()
    assert find_mount(path) is None
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "some where", path], check=True)
    found = find_mount(path)
    assert found is not None
    assert (found.path, found.fs_type, found.source) == (path, "tmpfs", "some where")
    assert found.device == path.stat().st_dev
    assert mounts_below(tmp_path) == [found]
    assert unmount(path)
    assert find_mount(path) is None


def test_find_mount_through_a_linked_directory_finds_it(tmp_path: Path, target: Path) -> None:
    """The mount table knows real paths only."""
    (tmp_path / "link").symlink_to(target.parent)
    mounts.mount([bind(tmp_path)], target)
    found = find_mount(tmp_path / "link" / "rootfs")
    assert found is not None
    assert found.path == target


def test_find_mount_of_a_stack_gives_the_uppermost(tmp_path: Path, target: Path) -> None:
    """What is seen at the path is what is found."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        mounts.mount([bind(tmp_path / name)], target)
        found = find_mount(target)
        assert found is not None
        assert found.root.name == name
        assert entries(target) == [name]


def test_mounts_below_lists_deepest_first_and_not_itself(tmp_path: Path) -> None:
    """Unmounting in the order of the list works; a neighbour with a longer name is not below."""
    for name in ("a", "a/b", "a/b/c", "a-neighbour"):
        (tmp_path / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / name], check=True)
    below = mounts_below(tmp_path / "a")
    assert [mount.path for mount in below] == [tmp_path / "a/b/c", tmp_path / "a/b"]
    for mount in below:
        assert unmount(mount.path)


def test_mount_table_is_read_whole_while_mounts_come_and_go(tmp_path: Path) -> None:
    """A mount that is there all the time is in every reading."""
    (tmp_path / "steady").mkdir()
    (tmp_path / "coming").mkdir()
    mounts.mount([bind(tmp_path)], tmp_path / "steady")
    flag, coming = tmp_path / "flag", tmp_path / "coming"
    flag.touch()
    script = f"while [ -e {flag} ]; do mount --bind {tmp_path} {coming}; umount {coming}; done"
    with subprocess.Popen(["sh", "-c", script]) as shell:
        try:
            for _ in range(100):
                assert any(mount.path == tmp_path / "steady" for mount in iter_mounts())
        finally:
            flag.unlink()
    assert shell.returncode == 0


def test_bind_mount_shows_the_source_and_is_writable(tmp_path: Path, target: Path) -> None:
    """A snapshot without parent is a plain directory."""
    (tmp_path / "fs").mkdir()
    mounts.mount([bind(tmp_path / "fs")], target)
    (target / "f").touch()
    assert entries(tmp_path / "fs") == ["f"]
    found = find_mount(target)
    assert found is not None
    assert not found.read_only


def test_bind_mount_read_only_refuses_writing(tmp_path: Path, target: Path) -> None:
    """The kernel needs to be told twice, and is."""
    (tmp_path / "fs").mkdir()
    mounts.mount([bind(tmp_path / "fs", "ro", "rbind")], target)
    with pytest.raises(OSError, match="Read-only"):
        (target / "f").touch()
    (tmp_path / "fs" / "f").touch()
    found = find_mount(target)
    assert found is not None
    assert found.read_only


@pytest.mark.parametrize("nodev", [True, False])
@pytest.mark.parametrize("kind", ["bind", "overlay"])
def test_device_nodes_are_dead_unless_asked_for(
    tmp_path: Path, target: Path, kind: str, nodev: bool
) -> None:
    """An image cannot bring a key to the host's devices."""
    layers = Layers(tmp_path / "layers", 1)
    os.mknod(layers.lower[0] / "null", 0o20666, os.makedev(1, 3))
    description = bind(layers.lower[0]) if kind == "bind" else layers.mount()
    mounts.mount([description], target, nodev=nodev)
    if nodev:
        with pytest.raises(PermissionError):
            (target / "null").read_bytes()
    else:
        assert (target / "null").read_bytes() == b""


@pytest.mark.parametrize("count", [1, 2, 127, 500])
def test_overlay_of_any_depth_shows_all_layers_top_first(
    tmp_path: Path, target: Path, count: int
) -> None:
    """A page of options is no limit, and what is written goes to the upper directory."""
    layers = Layers(tmp_path / "io.containerd.snapshotter.v1.overlayfs" / "snapshots", count)
    mounts.mount([layers.mount()], target)
    assert len(entries(target)) == count + 1
    assert (target / "top").read_text() == str(count)
    (target / "written").write_text("here")
    assert (layers.upper / "written").read_text() == "here"
    found = find_mount(target)
    assert found is not None
    assert (found.fs_type, found.option("upperdir")) == ("overlay", str(layers.upper))
    assert unmount(target)
    assert (layers.upper / "written").read_text() == "here"


def test_overlay_without_upper_directory_is_read_only(tmp_path: Path, target: Path) -> None:
    """A view of several layers has only lower directories."""
    layers = Layers(tmp_path / "layers", 3)
    mounts.mount([layers.mount(writable=False)], target)
    assert (target / "top").read_text() == "3"
    with pytest.raises(OSError, match="Read-only"):
        (target / "f").touch()


@pytest.mark.parametrize("count", [2, 127])
def test_overlay_with_option_ro_is_read_only(tmp_path: Path, target: Path, count: int) -> None:
    """Whichever way the kernel is told."""
    layers = Layers(tmp_path / "layers", count)
    mounts.mount([layers.mount("ro")], target)
    with pytest.raises(OSError, match="Read-only"):
        (target / "f").touch()


@pytest.mark.parametrize("count", [2, 127])
@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name != "plain"])
def test_overlay_below_an_odd_name_mounts_and_tells_its_upper_directory(
    tmp_path: Path, target: Path, name: str, count: int
) -> None:
    """Characters that separate options are said so that the kernel takes them as part of a name."""
    layers = Layers(tmp_path / name / "snapshots", count)
    mounts.mount([layers.mount()], target)
    assert len(entries(target)) == count + 1
    found = find_mount(target)
    assert found is not None
    assert found.option("upperdir") == str(layers.upper)
    assert found.option("nothing") is None


@pytest.mark.parametrize("count", [2, 127])
def test_overlay_with_an_option_without_value_gets_it(
    tmp_path: Path, target: Path, count: int
) -> None:
    """Options of the snapshotter's configuration go to the kernel as they are."""
    layers = Layers(tmp_path / "layers", count)
    mounts.mount([layers.mount("userxattr")], target)
    found = find_mount(target)
    assert found is not None
    assert "userxattr" in found.options.split(",")


def test_overlay_of_too_many_layers_is_refused_before_the_kernel(
    tmp_path: Path, target: Path
) -> None:
    """The kernel would say "invalid argument"; we say what is wrong."""
    layers = Layers(tmp_path / "layers", 501)
    with pytest.raises(LimitExceededError, match="501 layers"):
        mounts.mount([layers.mount()], target)
    assert find_mount(target) is None


def test_overlay_with_a_missing_layer_names_it(tmp_path: Path, target: Path) -> None:
    """The kernel says only that something is missing."""
    layers = Layers(tmp_path / "layers", 2)
    gone = layers.lower[1].rename(tmp_path / "elsewhere")
    assert gone.is_dir()
    with pytest.raises(StorageError, match="/layers/1/fs"):
        mounts.mount([layers.mount()], target)


def test_overlay_where_the_layer_interface_is_missing_mounts_by_relative_paths(
    tmp_path: Path, target: Path, traced: Traced
) -> None:
    """Older kernels get the same mount, and the process keeps its working directory."""
    layers = Layers(tmp_path / "layers", 127)
    code = (
        "import os; from pathlib import Path; from cas.fsops.mounts import mount\n"
        "from cas.model.records import Mount; here = os.getcwd()\n"
        f"mount([{layers.mount()!r}], Path({str(target)!r}))\n"
        "assert os.getcwd() == here"
    )
    traced(code, "-e", "trace=fsopen", "-e", "inject=fsopen:error=ENOSYS")
    assert len(entries(target)) == 128
    found = find_mount(target)
    assert found is not None
    assert found.option("upperdir") == str(layers.upper)
    assert (found.option("lowerdir") or "").startswith("127/fs:126/fs:")


@pytest.mark.parametrize(
    ("description", "complaint"),
    [
        (Mount("erofs", "/x", ("ro",)), "erofs"),
        (Mount("bind", "/tmp", ("rbind", "uidmap=0:1000:1")), "uidmap"),
        (Mount("bind", "/tmp", ("rbind", "surprise")), "surprise"),
        (Mount("overlay", "overlay", ("lowerdir=/tmp", "gidmap=0:1:1")), "gidmap"),
        (Mount("overlay", "overlay", ("lowerdir=/tmp:/usr", "surprise=1")), "EINVAL"),
        (Mount("overlay", "overlay", ("index=off",)), "lowerdir"),
        (Mount("format/overlay", "overlay", ("X-containerd.mkfs=1",)), "X-containerd"),
    ],
    ids=lambda value: value.type if isinstance(value, Mount) else value,
)
def test_mount_that_is_not_understood_is_refused(
    target: Path, description: Mount, complaint: str
) -> None:
    """A guess could hide or open what the snapshotter meant to protect."""
    with pytest.raises(StorageError, match=complaint):
        mounts.mount([description], target)
    assert find_mount(target) is None


def test_mount_of_nothing_is_refused(target: Path) -> None:
    """An empty answer of the snapshotter is no volume."""
    with pytest.raises(StorageError, match="no mount"):
        mounts.mount([], target)


def test_mount_of_several_goes_on_top_of_each_other_or_not_at_all(
    tmp_path: Path, target: Path
) -> None:
    """If the second fails the first is taken away again, and what was there before stays."""
    (tmp_path / "before").mkdir()
    mounts.mount([bind(tmp_path / "before")], target)
    with pytest.raises(StorageError):
        mounts.mount([bind(tmp_path), bind(tmp_path / "missing")], target)
    found = find_mount(target)
    assert found is not None
    assert found.root.name == "before"


def test_mount_announces_each_and_unmount_too(
    tmp_path: Path, target: Path, effects_of: EffectsOf
) -> None:
    """Crash tests see mounts as any other change."""
    assert effects_of(lambda: mounts.mount([bind(tmp_path)], target)).kinds() == ["mount"]
    assert effects_of(lambda: unmount(target)).kinds() == ["umount"]


def test_unmount_of_what_is_not_mounted_is_false(tmp_path: Path, target: Path) -> None:
    """Repeating is no error, whether or not the directory is there."""
    assert not unmount(target)
    assert not unmount(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert not unmount(tmp_path / "file")


def test_unmount_of_a_symbolic_link_touches_nothing_behind_it(tmp_path: Path, target: Path) -> None:
    """A planted link cannot make us unmount something else."""
    mounts.mount([bind(tmp_path)], target)
    (tmp_path / "link").symlink_to(target)
    assert not unmount(tmp_path / "link")
    assert find_mount(target) is not None


@pytest.mark.parametrize("use", ["open", "cwd", "map", "chroot"])
def test_unmount_while_in_use_names_the_process(tmp_path: Path, target: Path, use: str) -> None:
    """Whoever reads the message knows what to stop."""
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs" / "f").write_bytes(b"x" * 4096)
    mounts.mount([bind(tmp_path / "fs")], target)
    action = {
        "open": f"f = open({str(target / 'f')!r})",
        "cwd": f"os.chdir({str(target)!r})",
        "map": f"f = open({str(target / 'f')!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()",
        "chroot": f"os.chroot({str(target)!r})",
    }[use]
    code = f"import os, mmap; {action}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        assert user.pid in [pid for pid, _ in holders(target)]
        with pytest.raises(InUseError, match=f"process {user.pid} "):
            unmount(target)
        user.communicate(b"\n")
    assert holders(target) == []
    assert unmount(target)


def test_unmount_with_something_mounted_below_names_it(tmp_path: Path, target: Path) -> None:
    """The way out is in the message."""
    (tmp_path / "fs" / "inner").mkdir(parents=True)
    mounts.mount([bind(tmp_path / "fs")], target)
    mounts.mount([bind(tmp_path)], target / "inner")
    with pytest.raises(InUseError, match="rootfs/inner"):
        unmount(target)


def test_unmount_lazily_detaches_in_spite_of_users(tmp_path: Path, target: Path) -> None:
    """Force means force; the user keeps what it has open."""
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs" / "f").write_bytes(b"x")
    mounts.mount([bind(tmp_path / "fs")], target)
    with (target / "f").open("rb") as file:
        assert unmount(target, lazily=True)
        assert find_mount(target) is None
        assert file.read() == b"x"


def test_holders_include_loop_devices(tmp_path: Path, target: Path) -> None:
    """A disk image in use has no process that shows it."""
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs" / "disk").write_bytes(bytes(1 << 20))
    mounts.mount([bind(tmp_path / "fs")], target)
    made = subprocess.run(
        ["losetup", "--find", "--show", target / "disk"], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    try:
        assert (0, Path(device).name) in holders(target)
        with pytest.raises(InUseError, match=Path(device).name):
            unmount(target)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_holders_of_a_neighbour_with_a_longer_name_are_not_ours(tmp_path: Path) -> None:
    """A common beginning of two names is not a common directory."""
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol-2").mkdir()
    with (tmp_path / "vol-2" / "f").open("wb"):
        assert holders(tmp_path / "vol") == []
        assert os.getpid() in [pid for pid, _ in holders(tmp_path / "vol-2")]
