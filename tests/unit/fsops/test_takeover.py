"""Taking over somebody else's file: each hazard is shut out."""

import logging
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import SourceNotFoundError, StorageError
from cas.fsops.inode import ExclusiveInode
from tests.unit.fsops.conftest import Effects

EffectsOf = Callable[[Callable[[], object]], Effects]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of user 1000."""
    path = tmp_path / "source"
    path.write_bytes(b"content")
    path.chmod(0o640)
    os.chown(path, 1000, 1001)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where files are linked to."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def taken(source: Path, store: Path) -> ExclusiveInode:
    """Take a file that can be taken."""
    inode = ExclusiveInode.take(source, store)
    assert inode is not None
    return inode


def test_take_of_a_quiet_file_moves_its_very_inode(source: Path, store: Path) -> None:
    """The content is not copied: the inode gets another name and another owner."""
    number = source.stat().st_ino
    with taken(source, store) as inode:
        assert inode.size == 7
        assert b"".join(inode.chunks()) == b"content"
        assert b"".join(inode.chunks(3)) == b"tent"
        assert inode.unchanged()
        assert inode.seal()
        assert inode.unchanged()
        assert inode.link(store / "f")
        assert inode.unchanged()
        assert inode.remove_source()
        assert not inode.remove_source()
        assert not inode.has_waiting_writer()
    status = (store / "f").stat()
    assert (status.st_ino, status.st_nlink) == (number, 1)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o444)
    assert not source.exists()


def test_take_announces_sync_before_link_and_link_before_unlink(
    source: Path, store: Path, effects_of: EffectsOf
) -> None:
    """At no moment has the inode no name."""

    def move() -> None:
        with taken(source, store) as inode:
            inode.seal()
            inode.link(store / "f")
            inode.remove_source()

    assert effects_of(move).kinds() == ["access", "fsync", "link", "unlink", "fsync"]


def test_take_asks_only_and_changes_nothing(source: Path, store: Path) -> None:
    """Until seal the file is as its owner left it."""
    before = source.stat()
    with taken(source, store):
        pass
    after = source.stat()
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_ctime_ns,
    )


def test_take_of_a_file_with_a_writer_is_refused_with_a_reason(
    source: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An open writer could change the blob after it was hashed."""
    caplog.set_level(logging.INFO)
    with source.open("ab"):
        assert ExclusiveInode.take(source, store) is None
    assert "somebody has it open for writing" in caplog.text
    with taken(source, store):
        pass


def test_take_of_a_file_with_a_writable_mapping_is_refused(source: Path, store: Path) -> None:
    """A mapping outlives its descriptor and writes without one."""
    with source.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    assert ExclusiveInode.take(source, store) is None
    mapping.close()


def test_take_of_a_file_with_a_writer_in_another_process_is_refused(
    source: Path, store: Path
) -> None:
    """The proof reaches every process."""
    code = f"f = open({str(source)!r}, 'ab'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert ExclusiveInode.take(source, store) is None
        writer.communicate(b"\n")
    with taken(source, store):
        pass


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "fifo", "socket", "directory", "device"])
def test_take_of_anything_but_a_plain_file_with_one_name_is_refused(
    tmp_path: Path, store: Path, kind: str
) -> None:
    """A second name would stay a way in; a link or device is not content."""
    path = tmp_path / "odd"
    match kind:
        case "hardlink":
            path.write_bytes(b"x")
            (tmp_path / "second").hardlink_to(path)
        case "symlink":
            (tmp_path / "real").write_bytes(b"x")
            path.symlink_to("real")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case "directory":
            path.mkdir()
        case _:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert ExclusiveInode.take(path, store) is None
    assert os.path.lexists(path)


def test_take_of_an_immutable_file_is_refused(source: Path, store: Path) -> None:
    """It could be neither sealed nor removed."""
    subprocess.run(["chattr", "+i", source], check=True)
    try:
        assert ExclusiveInode.take(source, store) is None
    finally:
        subprocess.run(["chattr", "-i", source], check=True)


def test_take_from_another_file_system_is_refused(store: Path, tiny: Path) -> None:
    """Nothing can be linked across."""
    (tiny / "f").write_bytes(b"x")
    assert ExclusiveInode.take(tiny / "f", store) is None


def test_take_through_another_mount_of_the_same_file_system_is_refused(
    tmp_path: Path, source: Path, store: Path
) -> None:
    """Equal device numbers do not make a link possible: mounts count."""
    view = tmp_path / "view"
    view.mkdir()
    subprocess.run(["mount", "--bind", tmp_path, view], check=True)
    assert (view / "source").stat().st_dev == store.stat().st_dev
    assert ExclusiveInode.take(view / "source", store) is None


def test_take_of_a_missing_file_is_source_not_found(tmp_path: Path, store: Path) -> None:
    """The caller decides what a missing source means."""
    with pytest.raises(SourceNotFoundError):
        ExclusiveInode.take(tmp_path / "missing", store)
    with pytest.raises(SourceNotFoundError):
        ExclusiveInode.take(tmp_path / "missing" / "f", store)


def test_writer_that_comes_later_is_noticed_and_does_not_kill_us(source: Path, store: Path) -> None:
    """The lease breaks, says so, and its signal ends nobody."""
    received: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: received.append(number))
    try:
        with taken(source, store) as inode:
            with pytest.raises(BlockingIOError):
                os.open(source, os.O_WRONLY | os.O_NONBLOCK)
            assert not inode.unchanged()
            assert inode.has_waiting_writer()
            assert not inode.seal()
            assert stat.S_IMODE(source.stat().st_mode) == 0o640
    finally:
        signal.signal(signal.SIGIO, before)
    assert received == []


def test_truncation_that_comes_later_is_noticed(source: Path, store: Path) -> None:
    """Cutting a file is writing it; the one who cuts waits until the file is let go."""
    with taken(source, store) as inode:
        # Not the program of that name, which gives up where others wait.
        code = f"import os; os.truncate({str(source)!r}, 0)"
        cutter = subprocess.Popen([sys.executable, "-c", code])
        while inode.unchanged():
            assert cutter.poll() is None, "the cut went by unnoticed"
        inode.close()
        assert cutter.wait() == 0
    assert source.stat().st_size == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path.parent / "second").hardlink_to(path),
        lambda path: path.chmod(0o666),
        lambda path: os.chown(path, 5, 5),
        lambda path: os.utime(path, (1, 1)),
    ],
    ids=["link", "mode", "owner", "time"],
)
def test_change_to_the_inode_that_comes_later_is_noticed(
    source: Path, store: Path, change: Callable[[Path], None]
) -> None:
    """Before and after the seal, whatever another process does to the inode shows."""
    with taken(source, store) as inode:
        change(source)
        assert not inode.unchanged()
        assert not inode.seal()
    (source.parent / "second").unlink(missing_ok=True)
    with taken(source, store) as inode:
        assert inode.seal()
        change(source)
        assert not inode.unchanged()


def test_name_swapped_in_between_is_not_removed(source: Path, store: Path) -> None:
    """What is linked is what was read; the file that took the name stays."""
    with taken(source, store) as inode:
        source.unlink()
        source.write_bytes(b"another")
        assert not inode.unchanged()
        assert not inode.remove_source()
    assert source.read_bytes() == b"another"


def test_restore_gives_owner_and_mode_back(source: Path, store: Path) -> None:
    """A file whose content was wrong goes back to its owner as it was."""
    with taken(source, store) as inode:
        assert inode.seal()
        inode.restore()
        inode.restore()
        assert inode.unchanged()
    status = source.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, 0o640)


def test_restore_after_linking_leaves_the_blob_sealed(source: Path, store: Path) -> None:
    """The inode is shared then; making it writable would open the blob."""
    with taken(source, store) as inode:
        inode.seal()
        inode.link(store / "f")
        inode.restore()
    status = (store / "f").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o444)


def test_link_onto_a_taken_name_reports_it(source: Path, store: Path) -> None:
    """Whoever was first stays, and the source can still be given back."""
    (store / "f").write_bytes(b"first")
    with taken(source, store) as inode:
        inode.seal()
        assert not inode.link(store / "f")
        inode.restore()
    assert (store / "f").read_bytes() == b"first"
    assert source.stat().st_uid == 1000


def test_closed_inode_ends_its_lease_and_refuses_use(source: Path, store: Path) -> None:
    """Writers wait no longer than the work takes."""
    inode = taken(source, store)
    inode.close()
    inode.close()
    os.close(os.open(source, os.O_WRONLY | os.O_NONBLOCK))
    with pytest.raises(StorageError, match="closed"):
        inode.unchanged()


def test_take_again_after_a_crash_between_seal_and_link_works(source: Path, store: Path) -> None:
    """A killed run leaves the file root's and read-only, which is no obstacle."""
    with taken(source, store) as inode:
        inode.seal()
    with taken(source, store) as inode:
        assert inode.seal()
        assert inode.link(store / "f")
        assert inode.remove_source()
    assert (store / "f").read_bytes() == b"content"
