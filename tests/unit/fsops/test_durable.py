"""Names that survive: the ritual, its order, crashes at every step, power cuts."""

import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.errors import (
    AlreadyExistsError,
    CasError,
    InUseError,
    LayoutError,
    NoSpaceError,
    StorageError,
)
from cas.fsops import durable
from cas.fsops.effects import observed
from tests.support.loopfs import LoopFileSystem
from tests.unit.fsops.conftest import Effects, Killed, entries

EffectsOf = Callable[[Callable[[], object]], Effects]
KilledAt = Callable[[int, Callable[[], object]], bool]
Traced = Callable[..., list[str]]
MakeExt4 = Callable[..., LoopFileSystem]


def test_write_file_new_name_has_content_mode_and_owner(tmp_path: Path) -> None:
    """The file is what was asked for, whatever the umask."""
    before = os.umask(0o077)
    try:
        durable.write_file(tmp_path / "f", b"content", mode=0o664, owner=(12, 34))
    finally:
        os.umask(before)
    status = (tmp_path / "f").stat()
    assert (tmp_path / "f").read_bytes() == b"content"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o664, 12, 34)
    assert entries(tmp_path) == ["f"]


def test_write_file_announces_the_ritual_in_order(tmp_path: Path, effects_of: EffectsOf) -> None:
    """Content is synced before the name, and the directory after it."""
    seen = effects_of(lambda: durable.write_file(tmp_path / "f", b"x"))
    assert seen.kinds() == ["write-file", "write-file", "fsync", "rename", "fsync"]
    assert seen[-1][1] == str(tmp_path)


def test_write_file_in_the_kernels_eyes_syncs_renames_syncs(tmp_path: Path, traced: Traced) -> None:
    """The system calls follow the ritual, not just its announcements."""
    target = tmp_path / "made"
    code = (
        "from pathlib import Path; from cas.fsops.durable import write_file; "
        f"write_file(Path({str(target)!r}), b'x')"
    )
    lines = [
        line for line in traced(code, "-e", "trace=fsync,/^rename,write") if str(tmp_path) in line
    ]
    calls = [re.sub(r"^\d+ +(rename|\w+).*", r"\1", line) for line in lines]
    assert calls == ["write", "fsync", "rename", "fsync"]
    assert ".cas-temporary>" in lines[1]
    assert f"<{tmp_path}>" in lines[3]


def test_write_file_on_a_symbolic_link_replaces_the_link(tmp_path: Path) -> None:
    """A planted link cannot direct the content elsewhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    (tmp_path / "f").symlink_to(victim)
    durable.write_file(tmp_path / "f", b"new")
    assert victim.read_bytes() == b"old"
    assert not (tmp_path / "f").is_symlink()


def test_write_file_without_room_keeps_the_old_file_and_leaves_nothing(tiny: Path) -> None:
    """A full disk changes nothing that was there."""
    durable.write_file(tiny / "f", b"old")
    with pytest.raises(NoSpaceError):
        durable.write_file(tiny / "f", bytes(512 * 1024))
    assert (tiny / "f").read_bytes() == b"old"
    assert entries(tiny) == ["f"]


def test_write_file_into_a_missing_directory_is_a_storage_error(tmp_path: Path) -> None:
    """Directories are made on purpose only."""
    with pytest.raises(StorageError, match="ENOENT"):
        durable.write_file(tmp_path / "missing" / "f", b"x")


def test_write_file_interrupted_at_each_change_leaves_old_or_new(tmp_path: Path) -> None:
    """An exception at any step unwinds to one of the two whole states."""
    for number in range(5):
        target = tmp_path / f"f{number}"
        target.write_bytes(b"old")
        left = number

        def interrupt(kind: object, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        with pytest.raises(Killed), observed(interrupt):
            durable.write_file(target, b"new")
        # Only the last change, syncing the directory, comes after the name is there.
        assert target.read_bytes() == (b"new" if number == 4 else b"old")
    assert entries(tmp_path) == ["f0", "f1", "f2", "f3", "f4"]


def test_write_file_killed_at_each_change_leaves_old_or_new(
    tmp_path: Path, killed_at: KilledAt
) -> None:
    """A killed writer leaves one of the two whole states, and a leftover that can be swept."""
    target = tmp_path / "f"
    number = 0
    contents = []
    while True:
        target.write_bytes(b"old")
        killed = killed_at(number, lambda: durable.write_file(target, b"new" * 1000))
        contents.append(target.read_bytes())
        assert all(name == "f" or durable.is_temporary(name) for name in entries(tmp_path))
        durable.remove_temporaries(tmp_path)
        assert entries(tmp_path) == ["f"]
        if not killed:
            break
        number += 1
    assert contents == [b"old"] * 4 + [b"new" * 1000] * 2


def test_remove_temporaries_spares_living_writers(tmp_path: Path) -> None:
    """The sweeper takes what no process holds, and nothing else."""
    living, dead = tmp_path / durable.temporary_name(), tmp_path / durable.temporary_name()
    other = tmp_path / ".hidden"
    for path in (living, dead, other):
        path.touch()
    (tmp_path / durable.temporary_name()).mkdir()
    with living.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert durable.remove_temporaries(tmp_path) == 2
        assert entries(tmp_path) == sorted([living.name, other.name])
    assert durable.remove_temporaries(tmp_path) == 1
    assert durable.remove_temporaries(tmp_path) == 0


def test_remove_temporaries_leaves_alone_what_is_never_made_here(tmp_path: Path) -> None:
    """Full directories, links and sockets of such a name are somebody else's."""
    full, link, bound = (tmp_path / durable.temporary_name() for _ in range(3))
    (full / "inside").mkdir(parents=True)
    link.symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bound))
    assert durable.remove_temporaries(tmp_path) == 0
    assert entries(tmp_path) == sorted(path.name for path in (full, link, bound))
    assert (full / "inside").is_dir()


def test_remove_temporaries_during_writing_never_makes_a_writer_fail(tmp_path: Path) -> None:
    """Sweeping beside busy writers takes nothing from them."""

    def write(worker: int) -> None:
        for number in range(40):
            durable.write_file(tmp_path / f"{worker}-{number}", b"x")
            durable.make_directory(tmp_path / f"{worker}-{number}-d", mode=0o700)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, worker) for worker in range(3)]
        while not all(writer.done() for writer in writers):
            durable.remove_temporaries(tmp_path)
        for writer in writers:
            writer.result()
    assert len(entries(tmp_path)) == 240


def test_make_directory_has_mode_and_owner_whatever_the_umask(tmp_path: Path) -> None:
    """The directory appears with its final owner and mode."""
    before = os.umask(0o077)
    try:
        durable.make_directory(tmp_path / "d", mode=0o2775, owner=(12, 34))
    finally:
        os.umask(before)
    status = (tmp_path / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2775, 12, 34)
    assert entries(tmp_path) == ["d"]


def test_make_directory_twice_leaves_the_first_alone(tmp_path: Path) -> None:
    """Repeating changes nothing, mode included; exist_ok=False says so."""
    durable.make_directory(tmp_path / "d", mode=0o700)
    durable.make_directory(tmp_path / "d", mode=0o755)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    with pytest.raises(AlreadyExistsError):
        durable.make_directory(tmp_path / "d", mode=0o700, exist_ok=False)


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_make_directory_where_something_else_is_refuses(tmp_path: Path, kind: str) -> None:
    """A symbolic link to a directory is not a directory."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "d"
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path / ("real" if kind == "link" else "nowhere"))
    with pytest.raises(LayoutError):
        durable.make_directory(path, mode=0o700)


def test_make_directory_with_parents_syncs_each_parent(
    tmp_path: Path, effects_of: EffectsOf
) -> None:
    """Every directory made on the way is durable in its own parent."""
    seen = effects_of(lambda: durable.make_directory(tmp_path / "a/b/c", mode=0o700, parents=True))
    synced = [path for kind, path in seen if kind == "fsync"]
    a, b, c = (f"{tmp_path}/{name}" for name in ("a", "a/b", "a/b/c"))
    assert synced == [a, str(tmp_path), b, a, c, b]


def test_make_directory_without_its_parent_is_a_storage_error(tmp_path: Path) -> None:
    """Parents are made on request only."""
    with pytest.raises(StorageError, match="ENOENT"):
        durable.make_directory(tmp_path / "a/b", mode=0o700)


def test_make_directory_killed_at_each_change_has_the_right_mode_or_is_absent(
    tmp_path: Path, killed_at: KilledAt
) -> None:
    """No crash leaves a directory with a wrong owner or mode."""
    path = tmp_path / "d"
    number = 0
    while killed_at(number, lambda: durable.make_directory(path, mode=0o750, owner=(1, 2))):
        if path.exists():
            status = path.stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 1, 2)
            path.rmdir()
        durable.remove_temporaries(tmp_path)
        assert entries(tmp_path) == []
        number += 1
    assert number == 4
    assert path.is_dir()


def test_make_directory_interrupted_at_each_change_leaves_nothing_half(tmp_path: Path) -> None:
    """An exception unwinds to absent, or to complete."""
    for number in range(4):
        left = number

        def interrupt(kind: object, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        with pytest.raises(Killed), observed(interrupt):
            durable.make_directory(tmp_path / "d", mode=0o750)
        assert entries(tmp_path) == (["d"] if number == 3 else [])


def test_make_directory_by_many_threads_succeeds_in_each(tmp_path: Path) -> None:
    """Whoever comes second finds it made."""
    for number in range(10):
        path = tmp_path / str(number)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _, p=path: durable.make_directory(p, mode=0o700), range(8)))
    assert len(entries(tmp_path)) == 10


def test_publish_gives_the_name_and_syncs_both_directories(
    tmp_path: Path, effects_of: EffectsOf
) -> None:
    """The new name is durable before the old one is given up."""
    (tmp_path / "building").mkdir()
    final = tmp_path / "sub" / "final"
    final.parent.mkdir()
    seen = effects_of(lambda: durable.publish(tmp_path / "building", final))
    assert final.is_dir()
    assert seen.kinds() == ["rename", "fsync", "fsync"]
    assert [path for _, path in seen][1:] == [str(final.parent), str(tmp_path)]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_publish_onto_an_existing_name_changes_nothing(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """An empty directory would give way to rename; not here."""
    make(tmp_path / "new")
    make(tmp_path / "final")
    inode = (tmp_path / "final").stat().st_ino
    with pytest.raises(AlreadyExistsError):
        durable.publish(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final").stat().st_ino == inode
    assert entries(tmp_path) == ["final", "new"]


def test_publish_with_replace_takes_the_place(tmp_path: Path) -> None:
    """Replacing is asked for, never assumed."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    durable.publish(tmp_path / "new", tmp_path / "final", replace=True)
    assert (tmp_path / "final").read_bytes() == b"new"
    assert entries(tmp_path) == ["final"]


def test_publish_across_file_systems_is_an_error_that_changes_nothing(
    tmp_path: Path, tiny: Path
) -> None:
    """A rename never turns into a copy."""
    (tmp_path / "new").write_bytes(b"new")
    with pytest.raises(StorageError, match="EXDEV"):
        durable.publish(tmp_path / "new", tiny / "final")
    assert (tmp_path / "new").exists()


def test_publish_of_a_mount_point_names_the_state(tmp_path: Path, tiny: Path) -> None:
    """Directories with something mounted on them do not move."""
    with pytest.raises(InUseError):
        durable.publish(tiny, tmp_path / "elsewhere")


def test_rename_aside_moves_once_and_reports_absence(tmp_path: Path) -> None:
    """A repeated removal finds nothing to do."""
    (tmp_path / "d").mkdir()
    assert durable.rename_aside(tmp_path / "d", tmp_path / ".d.removing")
    assert not durable.rename_aside(tmp_path / "d", tmp_path / ".d.removing")
    assert entries(tmp_path) == [".d.removing"]


def test_rename_aside_onto_a_leftover_changes_nothing(tmp_path: Path) -> None:
    """A leftover must be finished first, not overwritten."""
    (tmp_path / "d").mkdir()
    (tmp_path / "aside").mkdir()
    with pytest.raises(AlreadyExistsError):
        durable.rename_aside(tmp_path / "d", tmp_path / "aside")
    assert entries(tmp_path) == ["aside", "d"]


def test_rename_aside_into_a_missing_directory_is_not_absence(tmp_path: Path) -> None:
    """ENOENT of the target must not be read as "was not there"."""
    (tmp_path / "d").mkdir()
    with pytest.raises(StorageError):
        durable.rename_aside(tmp_path / "d", tmp_path / "missing" / "d")
    with pytest.raises(StorageError):
        durable.rename_aside(tmp_path / "absent", tmp_path / "missing" / "d")


def test_exchange_swaps_two_directories(tmp_path: Path) -> None:
    """Both names exist at every moment."""
    (tmp_path / "a" / "was-a").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    durable.exchange(tmp_path / "a", tmp_path / "b")
    assert entries(tmp_path / "b") == ["was-a"]
    with pytest.raises(StorageError):
        durable.exchange(tmp_path / "a", tmp_path / "missing")


def test_remove_file_removes_links_and_files_and_reports_absence(
    tmp_path: Path, effects_of: EffectsOf
) -> None:
    """Links go themselves; a repeat syncs again, since the first may not have come so far."""
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    assert durable.remove_file(tmp_path / "l")
    assert effects_of(lambda: durable.remove_file(tmp_path / "f")).kinds() == ["unlink", "fsync"]
    assert effects_of(lambda: durable.remove_file(tmp_path / "f")).kinds() == ["unlink", "fsync"]
    assert not durable.remove_file(tmp_path / "f")
    assert not durable.remove_file(tmp_path / "missing" / "f")
    assert not durable.remove_file(tmp_path / "f", sync=False)
    with pytest.raises(StorageError):
        durable.remove_file(tmp_path / "f", missing_ok=False)


def test_remove_file_of_a_directory_is_refused(tmp_path: Path) -> None:
    """Directories have their own function."""
    (tmp_path / "d").mkdir()
    with pytest.raises(CasError):
        durable.remove_file(tmp_path / "d")
    assert (tmp_path / "d").is_dir()


def test_set_owner_and_mode_repairs_a_directory_and_refuses_a_link(tmp_path: Path) -> None:
    """A link in the place of a layout directory is a finding, not something to follow."""
    (tmp_path / "d").mkdir(mode=0o777)
    (tmp_path / "l").symlink_to("d")
    durable.set_owner_and_mode(tmp_path / "d", user=3, group=4, mode=0o750)
    status = (tmp_path / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 3, 4)
    with pytest.raises(LayoutError):
        durable.set_owner_and_mode(tmp_path / "l", user=0, group=0, mode=0o700)
    with pytest.raises(StorageError):
        durable.set_owner_and_mode(tmp_path / "missing", user=0, group=0, mode=0o700)


@pytest.mark.slow
def test_power_cut_right_after_return_loses_nothing_acknowledged(ext4: MakeExt4) -> None:
    """Files, directories and published names are there after the journal's replay."""
    disk = ext4()
    for number in range(10):
        durable.write_file(disk.path / f"file-{number}", b"%d" % number * 5000)
        durable.make_directory(disk.path / f"dir-{number}" / "in", mode=0o750, parents=True)
        (disk.path / f"tmp-{number}").mkdir()
        durable.publish(disk.path / f"tmp-{number}", disk.path / f"published-{number}")
    (disk.path / "never-synced").write_bytes(b"x" * 5000)
    disk.power_cut()
    disk.remount()
    for number in range(10):
        assert (disk.path / f"file-{number}").read_bytes() == b"%d" % number * 5000
        assert stat.S_IMODE((disk.path / f"dir-{number}" / "in").stat().st_mode) == 0o750
        assert (disk.path / f"published-{number}").is_dir()
        assert not (disk.path / f"tmp-{number}").exists()
    # Proves that the cut was one: what nobody synced is not there, or empty.
    lost = disk.path / "never-synced"
    assert not lost.exists() or lost.read_bytes() != b"x" * 5000


@pytest.mark.slow
def test_power_cut_after_sync_file_system_keeps_what_others_wrote(ext4: MakeExt4) -> None:
    """One call makes a whole tree of foreign files durable."""
    disk = ext4()
    for number in range(50):
        (disk.path / str(number)).write_bytes(b"content %d" % number)
    durable.sync_file_system(disk.path)
    (disk.path / "later").write_bytes(b"x" * 5000)
    disk.power_cut()
    disk.remount()
    assert all(
        (disk.path / str(number)).read_bytes() == b"content %d" % number for number in range(50)
    )
    later = disk.path / "later"
    assert not later.exists() or later.read_bytes() != b"x" * 5000


@pytest.mark.slow
def test_power_cut_after_remove_file_keeps_it_removed(ext4: MakeExt4) -> None:
    """A removal that was reported stays one."""
    disk = ext4()
    durable.write_file(disk.path / "f", b"x")
    durable.remove_file(disk.path / "f")
    disk.power_cut()
    disk.remount()
    assert not (disk.path / "f").exists()


def test_sync_of_something_missing_is_a_storage_error(tmp_path: Path) -> None:
    """A sync that did not happen is never success."""
    with pytest.raises(StorageError):
        durable.sync_directory(tmp_path / "missing")
    with pytest.raises(StorageError):
        durable.sync_file_system(tmp_path / "missing")
