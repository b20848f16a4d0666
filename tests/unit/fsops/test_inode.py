"""Staged files: alone with their inode until they are sealed and linked."""

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import InUseError, NoSpaceError, StorageError
from cas.fsops.durable import is_temporary, remove_temporaries
from cas.fsops.inode import StagedInode, clone
from tests.support.loopfs import LoopFileSystem
from tests.unit.fsops.conftest import Effects, entries

EffectsOf = Callable[[Callable[[], object]], Effects]
KilledAt = Callable[[int, Callable[[], object]], bool]
Traced = Callable[..., list[str]]
MakeExt4 = Callable[..., LoopFileSystem]


def stage_and_link(directory: Path, target: Path) -> None:
    """Take content through a whole life."""
    with StagedInode.anonymous(directory) as staged:
        staged.write(b"content")
        staged.seal()
        staged.link(target)


def test_anonymous_until_linked_has_no_name(tmp_path: Path) -> None:
    """Nothing is visible before the link, and the link has all of it."""
    with StagedInode.anonymous(tmp_path) as staged:
        staged.write(b"con")
        staged.write(memoryview(b"tent"))
        assert entries(tmp_path) == []
        staged.seal()
        assert staged.link(tmp_path / "f")
        assert (tmp_path / "f").stat().st_ino == os.fstat(staged.fileno()).st_ino
    assert (tmp_path / "f").read_bytes() == b"content"
    assert entries(tmp_path) == ["f"]


def test_anonymous_closed_unlinked_leaves_nothing(tmp_path: Path) -> None:
    """Giving up needs no cleaning."""
    with StagedInode.anonymous(tmp_path) as staged:
        staged.write(b"x")
    staged.close()
    assert entries(tmp_path) == []
    with pytest.raises(StorageError, match="closed"):
        staged.write(b"x")


def test_seal_makes_it_roots_read_only_and_closes_the_writable_descriptor(tmp_path: Path) -> None:
    """Nobody, this process included, can write the sealed inode through what is open."""
    before = entries(Path("/proc/self/fd"))
    with StagedInode.anonymous(tmp_path) as staged:
        staged.write(b"x")
        staged.seal()
        staged.seal()
        status = os.fstat(staged.fileno())
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o444)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(staged.fileno(), b"y")
        with pytest.raises(StorageError, match="EBADF"):
            staged.write(b"y")
        assert len(entries(Path("/proc/self/fd"))) - len(before) <= 1
        assert b"".join(staged.chunks()) == b"x"


def test_seal_syncs_before_the_name_appears(tmp_path: Path, effects_of: EffectsOf) -> None:
    """Owner and mode are part of what is synced; the link comes last."""
    seen = effects_of(lambda: stage_and_link(tmp_path, tmp_path / "f"))
    assert seen.kinds() == ["write-file", "write-file", "access", "fsync", "link"]


def test_seal_in_the_kernels_eyes_syncs_before_linking(tmp_path: Path, traced: Traced) -> None:
    """The system calls follow the order too, and the link comes from the inode."""
    code = (
        "from pathlib import Path; from cas.fsops.inode import StagedInode\n"
        f"s = StagedInode.anonymous(Path({str(tmp_path)!r})); s.write(b'x'); s.seal()\n"
        f"s.link(Path({str(tmp_path / 'f')!r})); s.close()"
    )
    lines = traced(code, "-e", "trace=fchown,fchmod,fsync,linkat")
    calls = [re.sub(r"^\d+ +(\w+)\(.*", r"\1", line) for line in lines if str(tmp_path) in line]
    assert calls == ["fchown", "fchmod", "fsync", "linkat"]


@pytest.mark.slow
def test_seal_with_a_writer_left_is_refused(tmp_path: Path) -> None:
    """A descriptor that somebody got hold of could still change the content."""
    with StagedInode.anonymous(tmp_path) as staged:
        staged.write(b"x")
        stray = os.open(f"/proc/self/fd/{staged.fileno()}", os.O_RDWR)
        with pytest.raises(InUseError, match="open for writing"):
            staged.seal()
        os.close(stray)


def test_link_before_seal_is_refused(tmp_path: Path) -> None:
    """Unfinished content gets no name."""
    with StagedInode.anonymous(tmp_path) as staged, pytest.raises(StorageError, match="sealed"):
        staged.link(tmp_path / "f")
    assert entries(tmp_path) == []


def test_link_onto_a_taken_name_reports_it_and_leaves_it(tmp_path: Path) -> None:
    """Whoever was first stays; the staged inode can be linked elsewhere."""
    (tmp_path / "f").write_bytes(b"first")
    with StagedInode.anonymous(tmp_path) as staged:
        staged.seal()
        assert not staged.link(tmp_path / "f")
        assert staged.link(tmp_path / "g")
    assert (tmp_path / "f").read_bytes() == b"first"


def test_link_to_another_file_system_is_a_storage_error(tmp_path: Path, tiny: Path) -> None:
    """Links do not cross file systems, and nothing is copied behind the caller's back."""
    with StagedInode.anonymous(tmp_path) as staged:
        staged.seal()
        with pytest.raises(StorageError, match="EXDEV"):
            staged.link(tiny / "f")


def test_reserve_beyond_the_room_fails_at_once(ext4: MakeExt4) -> None:
    """A full disk shows before the copying, not after."""
    disk = ext4(16)
    with StagedInode.anonymous(disk.path) as staged:
        with pytest.raises(NoSpaceError):
            staged.reserve(64 << 20)
        assert staged.size == 0


def test_reserve_keeps_the_size_and_seal_gives_back_the_rest(ext4: MakeExt4) -> None:
    """What was reserved too much does not stay allocated."""
    disk = ext4(16)
    with StagedInode.anonymous(disk.path) as staged:
        assert staged.reserve(4 << 20)
        assert os.fstat(staged.fileno()).st_blocks * 512 >= 4 << 20
        staged.write(b"x" * 4096)
        assert (staged.size, os.fstat(staged.fileno()).st_size) == (4096, 4096)
        assert staged.reserve(1)
        staged.seal()
        assert os.fstat(staged.fileno()).st_blocks * 512 <= 8192


def test_write_without_room_keeps_count_of_what_went_in(tiny: Path) -> None:
    """After a full disk the offset still is the truth, so that work can go on from it."""
    with StagedInode.open_partial(tiny / "p") as staged:
        with pytest.raises(NoSpaceError):
            staged.write(bytes(1 << 20))
        assert staged.offset == os.fstat(staged.fileno()).st_size


def test_partial_reopened_goes_on_where_it_was(tmp_path: Path) -> None:
    """A named partial file stays when closed, and is appended to."""
    path = tmp_path / "p"
    with StagedInode.open_partial(path) as staged:
        assert staged.offset == 0
        staged.write(b"con")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with StagedInode.open_partial(path) as staged:
        assert staged.offset == 3
        assert b"".join(staged.chunks()) == b"con"
        assert b"".join(staged.chunks(2)) == b"n"
        staged.write(b"tent")
        staged.seal()
        assert staged.link(tmp_path / "f")
        staged.discard()
        staged.discard()
    assert entries(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"content"


def test_partial_restarted_is_empty(tmp_path: Path) -> None:
    """What turned out wrong is written anew in place."""
    with StagedInode.open_partial(tmp_path / "p") as staged:
        staged.write(b"wrong")
        staged.start_writeback(0, 5)
        staged.restart()
        assert staged.offset == 0
        staged.write(b"ok")
    assert (tmp_path / "p").read_bytes() == b"ok"


def test_partial_sealed_by_a_killed_run_is_writable_again(tmp_path: Path) -> None:
    """A run killed between seal and link is resumed, not stuck."""
    with StagedInode.open_partial(tmp_path / "p") as staged:
        staged.write(b"x")
        staged.seal()
    with StagedInode.open_partial(tmp_path / "p") as staged:
        assert staged.offset == 1
        staged.write(b"y")
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "foreign", "fifo", "socket"])
def test_partial_that_is_not_ours_is_replaced_unread(tmp_path: Path, kind: str) -> None:
    """Nothing planted under the name is written through, linked, or waited for."""
    victim, path = tmp_path / "victim", tmp_path / "p"
    victim.write_bytes(b"victim")
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "hardlink":
        path.hardlink_to(victim)
    elif kind == "foreign":
        path.write_bytes(b"planted")
        os.chown(path, 1000, 1000)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with StagedInode.open_partial(path) as staged:
        assert staged.offset == 0
        staged.write(b"ours")
    assert victim.read_bytes() == b"victim"
    assert path.read_bytes() == b"ours"
    assert not path.is_symlink()


def test_partial_that_is_a_directory_is_a_storage_error(tmp_path: Path) -> None:
    """A directory is nobody's leftover, so it is not removed."""
    (tmp_path / "p").mkdir()
    with pytest.raises(StorageError):
        StagedInode.open_partial(tmp_path / "p")


def test_staged_killed_at_each_change_leaves_nothing_or_the_whole(
    tmp_path: Path, killed_at: KilledAt
) -> None:
    """An anonymous file needs no recovery."""
    number = 0
    while killed_at(number, lambda: stage_and_link(tmp_path, tmp_path / "f")):
        assert entries(tmp_path) == []
        number += 1
    assert number == 5
    assert (tmp_path / "f").read_bytes() == b"content"


def test_staged_where_unnamed_files_are_unknown_uses_a_name_and_removes_it(
    tmp_path: Path, traced: Traced
) -> None:
    """Without O_TMPFILE the same life works, and close leaves only the link."""
    code = (
        "import os; from pathlib import Path; from cas.fsops.inode import StagedInode\n"
        f"d = Path({str(tmp_path / 'd')!r}); d.mkdir()\n"
        "with StagedInode.anonymous(d) as s:\n"
        "  print(os.listdir(d), file=open(d.parent / 'names', 'w'))\n"
        "  s.write(b'x'); s.seal(); s.link(d / 'f')\n"
    )
    fault = "inject=openat:error=EOPNOTSUPP:when=1"
    traced(code, "-P", str(tmp_path / "d"), "-e", "trace=openat", "-e", fault)
    (name,) = eval((tmp_path / "names").read_text())
    assert is_temporary(name)
    assert entries(tmp_path / "d") == ["f"]
    assert remove_temporaries(tmp_path / "d") == 0


def test_clone_where_blocks_cannot_be_shared_says_no_and_changes_nothing(
    ext4: MakeExt4,
) -> None:
    """The caller copies then."""
    disk = ext4()
    (disk.path / "source").write_bytes(b"x" * 4096)
    with (disk.path / "source").open("rb") as source:
        with StagedInode.anonymous(disk.path) as staged:
            assert not staged.clone_from(source.fileno())
            assert staged.size == 0
        with (disk.path / "target").open("wb") as target:
            assert not clone(source.fileno(), target.fileno())


def test_clone_into_a_file_with_content_is_never_tried(tmp_path: Path) -> None:
    """Sharing replaces everything, so only an empty file may."""
    (tmp_path / "source").write_bytes(b"x")
    with (tmp_path / "source").open("rb") as source, StagedInode.anonymous(tmp_path) as staged:
        staged.write(b"y")
        assert not staged.clone_from(source.fileno())
        assert b"".join(staged.chunks()) == b"y"


@pytest.mark.slow
def test_power_cut_after_link_and_directory_sync_keeps_the_content(ext4: MakeExt4) -> None:
    """A sealed inode whose directory was synced is there, whole, with owner and mode."""
    disk = ext4()
    with StagedInode.anonymous(disk.path) as staged:
        staged.reserve(3 << 20)
        staged.write(b"z" * (2 << 20))
        staged.seal()
        staged.link(disk.path / "f")
    descriptor = os.open(disk.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    disk.power_cut()
    disk.remount()
    assert (disk.path / "f").read_bytes() == b"z" * (2 << 20)
    assert stat.S_IMODE((disk.path / "f").stat().st_mode) == 0o444
