"""What could make a seeded blob differ from its digest, each way shut."""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import DigestMismatchError, SizeMismatchError
from cas.fsops.effects import Effect, observed
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import CHUNK_BYTES
from cas.model.records import LeaseID
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest, Ingested, Way
from cas.store.content.sources import BytesSource, FileSource
from cas.store.leasing import Lease, Leasing
from tests.support.loopfs import LoopFileSystem
from tests.support.stores import (
    Collections,
    WatchedSource,
    assert_never_stored,
    assert_nothing_left,
    backing_for,
    blob_file,
    blobs_directory,
    is_stored,
    names,
    random_bytes,
)
from tests.support.waiting import wait_for

LARGE = 3 * CHUNK_BYTES + 4321
SMALL = 4321

both_sizes = pytest.mark.parametrize("size", [SMALL, LARGE])


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def ingest(backing: Backing) -> Ingest:
    return Ingest(backing)


@pytest.fixture
def lease(backing: Backing) -> Iterator[Lease]:
    with Leasing(backing).hold("test") as lease:
        yield lease


@pytest.fixture
def place(backing: Backing) -> Iterator[Path]:
    """A directory on the store's file system, where files can be taken over from."""
    directory = backing.layout.persist / "place"
    directory.mkdir()
    yield directory
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def write(path: Path, size: int = LARGE) -> bytes:
    data = random_bytes(size)
    path.write_bytes(data)
    return data


def move(ingest: Ingest, lease: Lease, path: Path, expected: Digest | None = None) -> Ingested:
    result = ingest.ingest(FileSource(path), lease, expected=expected, move=True)
    ingest.settle()
    return result


def assert_sound(backing: Backing, data: bytes) -> None:
    """The blob has its bytes and nobody but root could ever change that."""
    digest = Digest.of(data)
    path = blob_file(backing, digest)
    status = path.lstat()
    assert path.read_bytes() == data
    assert b"".join(backing.content.read(digest)) == data
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o444)
    assert status.st_nlink == 1


@pytest.mark.parametrize("moving", [False, True])
def test_writer_that_holds_the_source_open_cannot_change_the_blob(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, moving: bool
) -> None:
    """A descriptor opened for writing before the ingest writes into another inode."""
    data = write(place / "f")
    with (place / "f").open("r+b") as writer:
        ingest.ingest(FileSource(place / "f"), lease, move=moving)
        writer.write(b"changed")
        writer.flush()
    assert_sound(backing, data)
    assert (place / "f").exists() is not moving


class Watch:
    """Progress that calls a function at every chunk."""

    def __init__(self, at_chunk: Callable[[], object]) -> None:
        self._at_chunk = at_chunk

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        pass

    def advance(self, action: str, item: str, amount: int) -> None:
        self._at_chunk()

    def finish(self, action: str, item: str) -> None:
        pass


class LateWriter:
    """Opens a file for writing in a thread, which waits while the file is being taken over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Thread(target=self._write)

    def come(self) -> None:
        """Start, the first time, and return when it waits for the file."""
        if self._thread.ident is None:
            self._thread.start()
            wait_for(lambda: is_waiting(self._thread))

    def finish(self) -> None:
        self._thread.join()

    def _write(self) -> None:
        with self._path.open("r+b") as writer:
            writer.write(b"changed")


class ContentWith:
    """The content store; ``before_adoption`` is called first whenever a file is registered."""

    def __init__(self, backing: Backing, before_adoption: Callable[[Digest], object]) -> None:
        self._content = backing.content
        self._before_adoption = before_adoption

    def __getattr__(self, name: str) -> object:
        return getattr(self._content, name)

    def adopt(self, ref: str, lease: LeaseID, digest: Digest, *rest: object) -> bool:
        self._before_adoption(digest)
        return self._content.adopt(ref, lease, digest, *rest)  # type: ignore[arg-type]


def ingest_with(backing: Backing, before_adoption: Callable[[Digest], object]) -> Ingest:
    content = ContentWith(backing, before_adoption)
    return Ingest(replace(backing, content=content))  # type: ignore[arg-type]


def test_writer_that_comes_while_a_file_is_hashed_gets_it_and_a_copy_is_stored(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path
) -> None:
    """A file that somebody opens for writing in the middle is given up and copied instead."""
    write(place / "f")
    inode = (place / "f").stat().st_ino
    writer = LateWriter(place / "f")
    result = ingest.ingest(FileSource(place / "f"), lease, move=True, progress=Watch(writer.come))
    writer.finish()
    content = blob_file(backing, result.digest).read_bytes()
    assert Digest.of(content) == result.digest
    assert blob_file(backing, result.digest).stat().st_ino != inode
    assert_sound(backing, content)


def test_writer_that_comes_after_a_file_was_linked_writes_elsewhere(
    backing: Backing, lease: Lease, place: Path
) -> None:
    """Who opens the old name at the last moment gets the old inode, which is no blob any more."""
    data = write(place / "f")
    inode = (place / "f").stat().st_ino
    writer = LateWriter(place / "f")
    ingest = ingest_with(backing, lambda _digest: writer.come())
    ingest.ingest(FileSource(place / "f"), lease, move=True)
    writer.finish()
    assert blob_file(backing, Digest.of(data)).stat().st_ino != inode
    assert_sound(backing, data)
    lease.release()
    assert_nothing_left(backing)


def is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits in the kernel for the end of a lease on a file."""
    return "lease" in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text()


def test_second_name_of_the_source_cannot_change_the_blob(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path
) -> None:
    """A file with another hard link is copied, even to move it; the link stays as it was."""
    data = write(place / "f")
    os.link(place / "f", place / "alias")
    before = (place / "alias").stat()
    move(ingest, lease, place / "f")
    assert not (place / "f").exists()
    assert (place / "alias").stat().st_mode == before.st_mode
    (place / "alias").write_bytes(b"changed")
    assert_sound(backing, data)


def test_source_is_left_exactly_as_it_was(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path
) -> None:
    """Ingesting without moving changes neither owner nor mode nor times of the source."""
    data = write(place / "f")
    os.chown(place / "f", 12345, 12345)
    (place / "f").chmod(0o4777)
    before = (place / "f").stat()
    ingest.ingest(FileSource(place / "f"), lease)
    after = (place / "f").stat()
    fields = ("st_ino", "st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ctime_ns", "st_nlink")
    assert [getattr(before, field) for field in fields] == [
        getattr(after, field) for field in fields
    ]
    assert_sound(backing, data)


def test_moved_file_of_another_owner_becomes_roots(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path
) -> None:
    """The owner of a file that was taken over has no rights in the blob."""
    data = write(place / "f")
    os.chown(place / "f", 12345, 12345)
    (place / "f").chmod(0o4777)
    inode = (place / "f").stat().st_ino
    move(ingest, lease, place / "f")
    assert blob_file(backing, Digest.of(data)).stat().st_ino == inode
    assert names(place) == []
    assert_sound(backing, data)


@both_sizes
@pytest.mark.parametrize("named", [True, False])
def test_source_swapped_while_it_is_read_gives_a_blob_of_what_was_read(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, named: bool, size: int
) -> None:
    """Another file under the same name in the middle changes nothing."""
    data = write(place / "f", size)
    ingest.ingest(
        FileSource(place / "f"),
        lease,
        expected=Digest.of(data) if named else None,
        progress=Watch(lambda: swap(place / "f")),
    )
    assert_sound(backing, data)
    assert (place / "f").read_bytes() == b"other content"


@both_sizes
def test_source_swapped_while_it_is_moved_is_never_lost(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, size: int
) -> None:
    """The other file is stored itself or stays; it is never removed as if it were the first."""
    data = write(place / "f", size)
    watch = Watch(lambda: swap(place / "f"))
    result = ingest.ingest(FileSource(place / "f"), lease, move=True, progress=watch)
    stored = blob_file(backing, result.digest).read_bytes()
    assert stored in (data, b"other content")
    assert_sound(backing, stored)
    assert stored == b"other content" or (place / "f").read_bytes() == b"other content"


def swap(path: Path) -> None:
    path.with_name("other").write_bytes(b"other content")
    path.with_name("other").replace(path)


@both_sizes
def test_symbolic_link_is_followed_and_kept(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, size: int
) -> None:
    """What a link points to is copied; moving removes neither link nor target."""
    data = write(place / "f", size)
    (place / "link").symlink_to(place / "f")
    move(ingest, lease, place / "link")
    assert_sound(backing, data)
    assert (place / "link").is_symlink()
    assert (place / "f").read_bytes() == data


def test_file_of_another_file_system_is_copied_and_removed(
    backing: Backing,
    ingest: Ingest,
    lease: Lease,
    loop_ext4: Callable[[int], LoopFileSystem],
) -> None:
    """Moving across file systems copies, and removes the source when the blob is durable."""
    other = loop_ext4(32 * CHUNK_BYTES)
    data = write(other.path / "f")
    assert move(ingest, lease, other.path / "f").way is Way.SEED
    assert not (other.path / "f").exists()
    assert_sound(backing, data)


@both_sizes
def test_moved_file_with_another_digest_is_given_back(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, size: int
) -> None:
    """A file that is not what was claimed stays, with its owner and mode."""
    data = write(place / "f", size)
    os.chown(place / "f", 12345, 54321)
    (place / "f").chmod(0o640)
    with pytest.raises(DigestMismatchError):
        move(ingest, lease, place / "f", Digest.of(b"x"))
    with pytest.raises(SizeMismatchError):
        ingest.ingest(FileSource(place / "f"), lease, size=size + 1, move=True)
    status = (place / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 54321, 0o640)
    assert (place / "f").read_bytes() == data
    lease.release()
    assert_never_stored(backing, Digest.of(data))


@both_sizes
@pytest.mark.parametrize("named", [True, False])
def test_moved_file_that_exists_as_blob_is_removed(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, named: bool, size: int
) -> None:
    """A move ends with the file gone also if its bytes were in the store already."""
    data = write(place / "f", size)
    ingest.ingest(BytesSource(data), lease)
    result = move(ingest, lease, place / "f", Digest.of(data) if named else None)
    assert result.way is Way.EXISTED
    assert names(place) == []


@both_sizes
def test_moved_file_that_is_not_the_existing_blob_stays(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, size: int
) -> None:
    """A file is not destroyed on the word of whoever named a digest that exists."""
    existing = ingest.ingest(BytesSource(random_bytes(size)), lease).digest
    data = write(place / "f", size)
    assert move(ingest, lease, place / "f", existing).way is Way.EXISTED
    assert (place / "f").read_bytes() == data


@both_sizes
@pytest.mark.parametrize("way", [None, Way.STREAM])
@pytest.mark.parametrize("kind", ["bytes", "link", "directory", "alias", "writable", "owner"])
def test_wrong_thing_under_the_name_of_a_blob_is_set_aside(
    backing: Backing,
    ingest: Ingest,
    lease: Lease,
    place: Path,
    way: Way | None,
    kind: str,
    size: int,
) -> None:
    """What lies under a digest's name is never trusted unless it is that, and cannot change."""
    ingest.ingest(BytesSource(b"so that the directory exists"), lease)
    data = random_bytes(size)
    impostor = blob_file(backing, Digest.of(data))
    if kind == "link":
        (place / "target").write_bytes(data)
        impostor.symlink_to(place / "target")
    elif kind == "directory":
        impostor.mkdir()
    else:
        impostor.write_bytes(random_bytes(size) if kind == "bytes" else data)
        impostor.chmod(0o644 if kind == "writable" else 0o444)
        if kind == "owner":
            os.chown(impostor, 12345, 12345)
        if kind == "alias":
            os.link(impostor, place / "alias")
    assert ingest.ingest(BytesSource(data), lease, way=way).created
    assert_sound(backing, data)
    [aside] = names(backing.layout.quarantine)
    assert aside.startswith(Digest.of(data).hex)


@pytest.mark.parametrize("named", [True, False])
def test_right_file_under_the_name_of_a_blob_is_adopted(
    backing: Backing, ingest: Ingest, lease: Lease, named: bool
) -> None:
    """A file that a crash left among the blobs is hashed, registered and not copied again."""
    ingest.ingest(BytesSource(b"so that the directory exists"), lease)
    data = random_bytes(LARGE)
    orphan = blob_file(backing, Digest.of(data))
    orphan.write_bytes(data)
    orphan.chmod(0o444)
    inode = orphan.stat().st_ino
    source = WatchedSource(data)
    result = ingest.ingest(source, lease, expected=Digest.of(data) if named else None)
    assert (result.way, result.created) == (Way.SEED, True)
    assert bool(source.offsets) is not named
    assert orphan.stat().st_ino == inode
    assert_sound(backing, data)
    assert names(backing.layout.quarantine) == []


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("moving", [True, False])
def test_collections_while_seeding_lose_nothing(
    backing: Backing, ingest: Ingest, place: Path, named: bool, moving: bool
) -> None:
    """However often a collection removes the file between link and commit, it is linked again."""
    contents = [random_bytes(CHUNK_BYTES + number + 1) for number in range(12)]
    with Leasing(backing).hold("test") as lease, Collections(backing) as collections:
        for data in contents:
            (place / "f").write_bytes(data)
            result = ingest.ingest(
                FileSource(place / "f"),
                lease,
                expected=Digest.of(data) if named else None,
                move=moving,
                labels={GC_ROOT: "test"},
            )
            assert result.way is Way.SEED
        collections.wait()
        for data in contents:
            assert_sound(backing, data)
    assert_nothing_left(backing)


@pytest.mark.parametrize("moving", [True, False])
def test_file_collected_right_after_it_was_linked_is_linked_again(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path, moving: bool
) -> None:
    """The one unlucky moment, made to happen: the file is gone when containerd looks for it."""
    snatched: list[Digest] = []

    def snatch(digest: Digest) -> None:
        if len(snatched) < 3:
            snatched.append(digest)
            blob_file(backing, digest).unlink()

    unlucky = ingest_with(backing, snatch)
    data = write(place / "f")
    assert unlucky.ingest(FileSource(place / "f"), lease, move=moving).way is Way.SEED
    assert len(snatched) == 3
    assert_sound(backing, data)
    lease.release()
    assert_nothing_left(backing)


def test_names_among_the_blobs_are_digests_at_every_moment(
    backing: Backing, ingest: Ingest, lease: Lease, place: Path
) -> None:
    """A foreign name in the directory would stop containerd's collections for good."""
    seen: list[str] = []

    def look(effect: Effect, path: str) -> None:
        seen.extend(names(blobs_directory(backing)))

    ingest.ingest(BytesSource(b"so that the directory exists"), lease)
    with observed(look):
        ingest.ingest(BytesSource(random_bytes(LARGE)), lease)
        write(place / "f")
        move(ingest, lease, place / "f")
    assert seen
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in seen)


def test_blob_is_not_visible_before_it_is_whole(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """While bytes come in, neither containerd nor the directory shows the digest."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    visible: list[bool] = []

    def look(_number: int) -> None:
        visible.append(is_stored(backing, digest) or blob_file(backing, digest).exists())

    ingest.ingest(WatchedSource(data, look), lease, expected=digest)
    assert visible
    assert not any(visible)
