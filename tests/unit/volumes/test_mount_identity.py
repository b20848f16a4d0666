"""Recognising a volume's mount in the mount table."""

from pathlib import Path

import pytest

from cas.fsops.mounts import MountPoint
from cas.model.records import Mount
from cas.volumes.mount_identity import is_mount_of

_ROOT = "/persist/vault/case/io.containerd.snapshotter.v1.overlayfs/snapshots"
_ACTIVE = Mount(
    "overlay",
    "overlay",
    (
        "index=off",
        f"workdir={_ROOT}/12/work",
        f"upperdir={_ROOT}/12/fs",
        f"lowerdir={_ROOT}/3/fs:{_ROOT}/2/fs",
    ),
)
_VIEW = Mount("overlay", "overlay", (f"lowerdir={_ROOT}/3/fs:{_ROOT}/2/fs",))


def _point(options: str, fs_type: str = "overlay", path: Path = Path("/volume")) -> MountPoint:
    return MountPoint(
        path=path,
        fs_type=fs_type,
        source="overlay",
        options=options,
        mount_id=2,
        parent_id=1,
        device=1,
        read_only=False,
        root=Path("/"),
        raw_options=options,
    )


@pytest.mark.parametrize(
    "lower",
    [
        f"lowerdir={_ROOT}/3/fs:{_ROOT}/2/fs",
        "lowerdir=3/fs:2/fs",
        f"lowerdir+={_ROOT}/3/fs,lowerdir+={_ROOT}/2/fs",
    ],
)
def test_overlay_of_same_directories_is_recognised(lower: str) -> None:
    """However it was mounted: absolute, relative or one by one."""
    assert is_mount_of(_point(f"ro,{lower},index=off"), [_VIEW])
    upper = f"rw,{lower},upperdir={_ROOT}/12/fs,workdir={_ROOT}/12/work,index=off"
    assert is_mount_of(_point(upper), [_ACTIVE])


@pytest.mark.parametrize(
    "options",
    [
        f"rw,lowerdir=3/fs:2/fs,upperdir={_ROOT}/13/fs,workdir={_ROOT}/13/work",
        f"rw,lowerdir=3/fs:2/fs,upperdir={_ROOT}/1/fs,workdir={_ROOT}/1/work",
        "ro,lowerdir=3/fs:2/fs",
    ],
)
def test_overlay_of_other_upper_directory_is_foreign(options: str) -> None:
    """A mount of the same image for another volume is not this volume's."""
    assert not is_mount_of(_point(options), [_ACTIVE])


@pytest.mark.parametrize(
    "options",
    [
        "ro,lowerdir=2/fs:3/fs",
        "ro,lowerdir=3/fs",
        "ro,lowerdir=13/fs:2/fs",
        f"rw,lowerdir=3/fs:2/fs,upperdir={_ROOT}/12/fs,workdir={_ROOT}/12/work",
    ],
)
def test_view_of_other_layers_is_foreign(options: str) -> None:
    """Order and number of layers matter, and a writable mount is no view."""
    assert not is_mount_of(_point(options), [_VIEW])


def test_other_file_system_is_foreign() -> None:
    """Whatever its options pretend."""
    assert not is_mount_of(_point(f"upperdir={_ROOT}/12/fs", "tmpfs"), [_ACTIVE])


def test_bind_is_recognised_by_inode(tmp_path: Path) -> None:
    """A bind mount shows the source directory itself."""
    source, other = tmp_path / "source", tmp_path / "other"
    source.mkdir()
    other.mkdir()
    mount = Mount("bind", str(source), ("rw", "rbind"))
    assert is_mount_of(_point("rw", "ext4", source), [mount])
    assert not is_mount_of(_point("rw", "ext4", other), [mount])
    assert not is_mount_of(_point("rw", "ext4", tmp_path / "absent"), [mount])


def test_several_or_unknown_mounts_are_never_recognised() -> None:
    """Shapes that are not understood are foreign."""
    assert not is_mount_of(_point("rw"), [])
    assert not is_mount_of(_point("rw"), [_VIEW, _VIEW])
    assert not is_mount_of(_point("rw"), [Mount("btrfs", "/dev/x", ())])
