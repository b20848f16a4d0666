"""Removing and measuring trees that somebody hostile may have made."""

import itertools
import os
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.errors import CasError, DeniedError, InUseError, NoSpaceError, StorageError
from cas.fsops import trees
from cas.fsops.cursor import Cursor, MountCrossedError
from cas.fsops.durable import write_file
from cas.fsops.effects import observed
from cas.fsops.mounts import mount
from cas.model.records import Mount
from tests.support.loopfs import LoopFileSystem
from tests.unit.fsops.conftest import Effects, entries

EffectsOf = Callable[[Callable[[], object]], Effects]
KilledAt = Callable[[int, Callable[[], object]], bool]
MakeExt4 = Callable[..., LoopFileSystem]


def make_tree(top: Path) -> None:
    """Make a tree with every kind of entry."""
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "empty").mkdir(mode=0o000)
    (top / "a" / "file").write_bytes(b"x" * 5000)
    (top / "a" / "second").hardlink_to(top / "a" / "file")
    (top / "a" / "b" / "read-only").touch(mode=0o444)
    (top / "to-root").symlink_to("/")
    (top / "dangling").symlink_to("nowhere")
    os.mkfifo(top / "fifo")
    os.mknod(top / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    (top / os.fsdecode(b"odd \n\xff")).touch()
    (top / ("n" * 255)).mkdir()


def make_deep(top: Path, depth: int) -> None:
    """Make a tree far deeper than a path is long."""
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 20, dir_fd=descriptor)
        deeper = os.open("d" * 20, os.O_RDONLY, dir_fd=descriptor)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=deeper))
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)


def test_remove_tree_takes_everything_and_nothing_else(tmp_path: Path) -> None:
    """What links point to stays."""
    top = tmp_path / "top"
    make_tree(top)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").touch()
    (top / "to-outside").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "second-name").hardlink_to(top / "a" / "file")
    assert trees.remove_tree(top)
    assert entries(tmp_path) == ["outside"]
    assert entries(tmp_path / "outside") == ["f", "second-name"]
    assert not trees.remove_tree(top)


def test_remove_tree_of_a_file_or_link_removes_it_alone(tmp_path: Path) -> None:
    """A link to a tree is not the tree."""
    make_tree(tmp_path / "top")
    (tmp_path / "link").symlink_to("top")
    (tmp_path / "file").touch()
    assert trees.remove_tree(tmp_path / "link")
    assert trees.remove_tree(tmp_path / "file")
    assert entries(tmp_path) == ["top"]
    assert not trees.remove_tree(tmp_path / "missing" / "deeper")
    (tmp_path / "file").touch()
    assert not trees.remove_tree(tmp_path / "file" / "deeper")
    (tmp_path / "file").unlink()


def test_remove_tree_deeper_than_paths_and_descriptors_reach(tmp_path: Path) -> None:
    """Depth costs neither recursion nor descriptors."""
    make_deep(tmp_path / "deep", 1500)
    assert trees.allocated_bytes(tmp_path / "deep") >= 1501 * 4096
    assert trees.remove_tree(tmp_path / "deep")
    assert entries(tmp_path) == []


@pytest.mark.parametrize("place", ["", "a/b/c"])
def test_remove_tree_with_a_mount_removes_nothing_and_names_it(tmp_path: Path, place: str) -> None:
    """Removing through a mount would empty what is mounted."""
    top, outside = tmp_path / "top", tmp_path / "outside"
    make_tree(top)
    outside.mkdir()
    (outside / "f").touch()
    before = entries(top / "a")
    mount([Mount("bind", str(outside), ("rbind", "rw"))], top / place)
    with pytest.raises(InUseError, match="mounted at") as raised:
        trees.remove_tree(top)
    assert raised.value.details["mount_point"] == top / place
    assert entries(outside) == ["f"]
    subprocess.run(["umount", top / place], check=True)
    assert entries(top / "a") == before


def test_remove_tree_with_a_mounted_file_names_it(tmp_path: Path) -> None:
    """Files can be mount points too."""
    make_tree(tmp_path / "top")
    subprocess.run(["mount", "--bind", "/etc/hostname", tmp_path / "top/a/file"], check=True)
    with pytest.raises(InUseError, match="/a/file"):
        trees.remove_tree(tmp_path / "top")


def test_cursor_into_a_mount_of_the_same_file_system_is_stopped(tmp_path: Path) -> None:
    """Also what was mounted after the check is not entered, though the device is the same."""
    for name in ("top/inner", "outside/f"):
        (tmp_path / name).mkdir(parents=True)
    with Cursor(tmp_path / "top") as cursor:
        mount([Mount("bind", str(tmp_path / "outside"), ("rbind",))], tmp_path / "top/inner")
        with pytest.raises(MountCrossedError):
            cursor.descend("inner")
        assert (cursor.path, cursor.depth) == (str(tmp_path / "top"), 0)
    with pytest.raises(MountCrossedError):
        Cursor(tmp_path / "top" / "inner")


def test_cursor_never_follows_a_symbolic_link(tmp_path: Path) -> None:
    """An entry that was swapped for a link is not entered."""
    (tmp_path / "link").symlink_to("/")
    with Cursor(tmp_path) as cursor, pytest.raises(OSError, match=r"Not a directory|Too many"):
        cursor.descend("link")
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        Cursor(tmp_path / "link")


def test_cursor_in_a_directory_that_was_moved_does_not_go_on_elsewhere(tmp_path: Path) -> None:
    """Otherwise a move during the walk would let it remove what is not in the tree."""
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    with Cursor(tmp_path / "top") as cursor:
        cursor.descend("a")
        cursor.descend("b")
        (tmp_path / "top" / "a" / "b").rename(tmp_path / "elsewhere" / "b")
        with pytest.raises(OSError, match="moved"):
            cursor.ascend()


def test_remove_tree_syncs_the_parent_last(tmp_path: Path, effects_of: EffectsOf) -> None:
    """A removal that was reported survives a power cut."""
    make_tree(tmp_path / "top")
    seen = effects_of(lambda: trees.remove_tree(tmp_path / "top"))
    assert seen[-1] == ("fsync", str(tmp_path))
    assert set(seen.kinds()[:-1]) == {"unlink"}
    assert str(tmp_path / "top" / "a" / "b" / "read-only") in [path for _, path in seen]


def test_remove_tree_killed_at_each_change_is_finished_by_a_repeat(
    tmp_path: Path, killed_at: KilledAt
) -> None:
    """Wherever it stopped, the next call goes on."""
    number = 0
    killed = True
    while killed:
        make_tree(tmp_path / "top")
        killed = killed_at(number, lambda: trees.remove_tree(tmp_path / "top"))
        trees.remove_tree(tmp_path / "top")
        assert entries(tmp_path) == []
        number += 1
    assert number > 15


def test_remove_tree_by_several_at_once_succeeds_in_each(tmp_path: Path) -> None:
    """Recovery and a forced removal may meet."""
    for number in range(40):
        make_tree(tmp_path / "top" / str(number % 4) / "x" / str(number))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: trees.remove_tree(tmp_path / "top"), range(4)))
    assert entries(tmp_path) == []


def test_remove_tree_with_an_immutable_entry_is_denied(tmp_path: Path) -> None:
    """The error names the flag as a possible cause."""
    make_tree(tmp_path / "top")
    subprocess.run(["chattr", "+i", tmp_path / "top/a/file"], check=True)
    try:
        with pytest.raises(DeniedError, match="immutable"):
            trees.remove_tree(tmp_path / "top")
    finally:
        subprocess.run(["chattr", "-i", tmp_path / "top/a/file"], check=True)
    assert trees.remove_tree(tmp_path / "top")


def test_remove_tree_works_on_a_full_disk(tiny: Path) -> None:
    """Removing needs no room."""
    make_tree(tiny / "top")
    with pytest.raises(OSError, match="No space"):
        (tiny / "fill").write_bytes(bytes(1 << 20))
    assert trees.remove_tree(tiny / "top")


def test_allocated_bytes_agree_with_du(tmp_path: Path) -> None:
    """Hard links once, holes nothing, directories and links as they are."""
    make_tree(tmp_path / "top")
    with (tmp_path / "top" / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"x")
    (tmp_path / "top" / "a" / "third").hardlink_to(tmp_path / "top" / "a" / "file")
    du = subprocess.run(
        ["du", "-s", "--block-size=1", tmp_path / "top"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert trees.allocated_bytes(tmp_path / "top") == int(du.stdout.split()[0])
    assert trees.allocated_bytes(tmp_path / "top") < 1 << 20


def test_allocated_bytes_of_file_link_and_nothing(tmp_path: Path) -> None:
    """A link costs itself, absence costs nothing."""
    (tmp_path / "f").write_bytes(b"x" * 4097)
    (tmp_path / "l").symlink_to("f")
    assert trees.allocated_bytes(tmp_path / "f") == (tmp_path / "f").stat().st_blocks * 512
    assert trees.allocated_bytes(tmp_path / "l") == (tmp_path / "l").lstat().st_blocks * 512
    assert trees.allocated_bytes(tmp_path / "missing") == 0
    assert trees.allocated_bytes(tmp_path / "f" / "below") == 0


def test_allocated_bytes_do_not_count_other_mounts(tmp_path: Path) -> None:
    """What is mounted below has an owner of its own, on the same file system too."""
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "inner").mkdir(parents=True)
    (top / "other").mkdir()
    outside.mkdir()
    (outside / "big").write_bytes(bytes(1 << 20))
    before = trees.allocated_bytes(top)
    mount([Mount("bind", str(outside), ("rbind",))], top / "inner")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "other"], check=True)
    (top / "other" / "big").write_bytes(bytes(1 << 20))
    assert trees.allocated_bytes(top) <= before
    # A mount point that is asked for itself is measured.
    assert trees.allocated_bytes(top / "other") >= 1 << 20


def test_allocated_bytes_of_an_overlay_count_its_files(tmp_path: Path) -> None:
    """Inside an overlay files may show other devices than their directories."""
    for name in ("lower", "upper", "work", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "big").write_bytes(bytes(1 << 20))
    options = [f"{kind}dir={tmp_path}/{kind}" for kind in ("lower", "upper", "work")]
    mount([Mount("overlay", "overlay", tuple(options))], tmp_path / "target")
    assert trees.allocated_bytes(tmp_path / "target") >= 1 << 20


def test_allocated_bytes_while_the_tree_vanishes_is_no_error(tmp_path: Path) -> None:
    """Measuring a store at work sees what it sees, wherever it stands at that moment."""
    for stop in (1, 2, 5, 60):
        for number in range(10):
            make_tree(tmp_path / "top" / str(number))
        measuring = trees.iter_allocated(tmp_path / "top")
        total = sum(itertools.islice(measuring, stop))
        subprocess.run(["rm", "-rf", tmp_path / "top"], check=True)
        assert total + sum(measuring) > 0


def test_remove_tree_whose_entries_vanish_at_any_moment_is_no_error(tmp_path: Path) -> None:
    """Somebody who removes the same tree takes nothing from us but work."""
    for stop in range(0, 24, 3):
        make_tree(tmp_path / "top")
        left = stop

        def remove(kind: object, path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                subprocess.run(["rm", "-rf", tmp_path / "top"], check=True)

        with observed(remove):
            trees.remove_tree(tmp_path / "top")
        assert entries(tmp_path) == []


def test_free_bytes_shrink_by_what_is_written(ext4: MakeExt4) -> None:
    """The unit is bytes, and the number the file system's."""
    disk = ext4(32)
    before = trees.free_bytes(disk.path)
    write_file(disk.path / "f", bytes(4 << 20))
    assert 4 << 20 <= before - trees.free_bytes(disk.path) < 5 << 20
    with pytest.raises(StorageError):
        trees.free_bytes(disk.path / "missing")


def test_reserve_is_really_allocated_and_comes_free_on_a_full_disk(ext4: MakeExt4) -> None:
    """That is what it is for."""
    disk = ext4(32)
    reserve = disk.path / "reserve"
    assert trees.ensure_reserve(reserve, 8 << 20)
    assert reserve.stat().st_blocks * 512 >= 8 << 20
    assert stat.S_IMODE(reserve.stat().st_mode) == 0o600
    free = trees.free_bytes(disk.path)
    assert trees.ensure_reserve(reserve, 8 << 20)
    assert trees.free_bytes(disk.path) == free
    with pytest.raises(OSError, match="No space"):
        (disk.path / "fill").write_bytes(bytes(32 << 20))
    with pytest.raises(NoSpaceError):
        write_file(disk.path / "f", bytes(1 << 20))
    assert trees.release_reserve(reserve) >= 8 << 20
    write_file(disk.path / "f", bytes(1 << 20))
    assert trees.release_reserve(reserve) == 0


def test_reserve_without_room_is_given_up_not_kept_half(ext4: MakeExt4) -> None:
    """Half a reserve would only take what others need."""
    disk = ext4(32)
    free = trees.free_bytes(disk.path)
    assert not trees.ensure_reserve(disk.path / "reserve", 64 << 20)
    assert entries(disk.path) == ["lost+found"]
    assert trees.free_bytes(disk.path) == free


def test_reserve_grows_when_more_is_asked_for(tmp_path: Path) -> None:
    """A changed setting takes effect."""
    assert trees.ensure_reserve(tmp_path / "reserve", 1 << 16)
    assert trees.ensure_reserve(tmp_path / "reserve", 1 << 20)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20
    with pytest.raises(CasError):
        trees.ensure_reserve(tmp_path / "missing" / "reserve", 1)
