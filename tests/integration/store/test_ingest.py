"""Ingest on a real containerd: what holds whichever way a blob comes in."""

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd import config
from cas.containerd.client import Containerd
from cas.errors import (
    DaemonVersionError,
    DigestMismatchError,
    InterruptedOperationError,
    LeaseNotFoundError,
    LimitExceededError,
    SizeMismatchError,
    SourceNotFoundError,
    StorageError,
    StoreMetadataLostError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import GC_REF_CONTENT, GC_ROOT, MEDIA_TYPE
from cas.model.limits import CHUNK_BYTES, SMALL_BLOB_BYTES, Limits
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import BytesSource, FileSource, SliceSource, StreamSource
from cas.store.directories import create_directories
from cas.store.leasing import Lease, Leasing
from tests.support.daemon import connect, empty_namespace, persist_directory, settings_for
from tests.support.stores import (
    Collections,
    WatchedSource,
    assert_never_stored,
    assert_nothing_left,
    backing_for,
    blob_file,
    is_stored,
    labels_of,
    names,
    own_blobs,
    random_bytes,
)

LARGE = 5 * CHUNK_BYTES + 4321
SMALL = 4321
WAYS = (Way.SEED, Way.STREAM)
ROOTED = {GC_ROOT: "test"}

both_ways = pytest.mark.parametrize("way", WAYS)
all_sizes = pytest.mark.parametrize(
    ("way", "size"), [(Way.SEED, LARGE), (Way.STREAM, LARGE), (None, SMALL), (None, LARGE)]
)


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def ingest(backing: Backing) -> Ingest:
    return Ingest(backing)


@pytest.fixture
def lease(backing: Backing, ingest: Ingest) -> Iterator[Lease]:
    with Leasing(backing).hold("test") as lease:
        yield lease


def stored_bytes(backing: Backing, digest: Digest) -> bytes:
    return b"".join(backing.content.read(digest))


@all_sizes
@pytest.mark.parametrize("named", [True, False])
def test_blob_new_is_stored_with_its_bytes(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int, named: bool
) -> None:
    """Every way stores the bytes, the media type and the labels, and says how."""
    data = random_bytes(size)
    digest = Digest.of(data)
    result = ingest.ingest(
        BytesSource(data),
        lease,
        expected=digest if named else None,
        size=size if named else None,
        media_type="application/x-test",
        labels={"example.org/a": "b"},
        way=way,
    )
    ingest.settle()
    assert (result.digest, result.size, result.created) == (digest, size, True)
    assert result.way is (way or (Way.STREAM if size == SMALL else Way.SEED))
    assert stored_bytes(backing, digest) == data
    assert labels_of(backing, digest) == {MEDIA_TYPE: "application/x-test", "example.org/a": "b"}
    lease.release()
    assert_nothing_left(backing)


@pytest.mark.parametrize("size", [0, 1, SMALL_BLOB_BYTES, SMALL_BLOB_BYTES + 1])
@pytest.mark.parametrize("way", [None, *WAYS])
def test_blob_of_edge_size_from_a_stream_is_stored(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int, tmp_path: Path
) -> None:
    """Sizes at the border between the ways, from a source that says nothing about its size."""
    data = random_bytes(size)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as stream:
        result = ingest.ingest(StreamSource(stream, "stream"), lease, way=way)
    assert (result.digest, result.size) == (Digest.of(data), size)
    assert stored_bytes(backing, result.digest) == data


def test_slice_of_a_file_is_stored(
    backing: Backing, ingest: Ingest, lease: Lease, tmp_path: Path
) -> None:
    """A member of an archive is stored alone, without its neighbours."""
    data = random_bytes(LARGE)
    (tmp_path / "archive").write_bytes(b"before" + data + b"after")
    result = ingest.ingest(SliceSource(tmp_path / "archive", 6, LARGE), lease)
    assert result.digest == Digest.of(data)


@both_ways
def test_blob_file_belongs_to_root_and_is_read_only(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way
) -> None:
    """Whichever way it came, nobody but root could write the file, and nobody without chmod."""
    result = ingest.ingest(BytesSource(random_bytes(LARGE)), lease, way=way)
    status = blob_file(backing, result.digest).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o444)
    assert status.st_nlink == 1


@all_sizes
def test_blob_existing_is_success_without_opening_the_source(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """A digest that is there needs no source, not even one that exists."""
    data = random_bytes(size)
    digest = ingest.ingest(BytesSource(data), lease, way=way).digest
    result = ingest.ingest(FileSource(Path("/nonexistent")), lease, expected=digest, way=way)
    assert (result.digest, result.size, result.way, result.created) == (
        digest,
        size,
        Way.EXISTED,
        False,
    )


@all_sizes
def test_blob_existing_under_another_lease_is_held_by_ours(
    backing: Backing, ingest: Ingest, way: Way | None, size: int
) -> None:
    """What exists is pinned by the later caller's lease, so the first one's end does no harm."""
    data = random_bytes(size)
    leasing = Leasing(backing)
    with leasing.hold("second") as second:
        with leasing.hold("first") as first:
            ingest.ingest(BytesSource(data), first, way=way)
            ingest.ingest(BytesSource(data), second, way=way)
        backing.leases.collect_garbage()
        assert stored_bytes(backing, Digest.of(data)) == data


@all_sizes
@pytest.mark.parametrize("named", [True, False])
def test_blob_of_another_namespace_is_shared_on_disk_and_apart_in_name(
    backing: Backing,
    containerd: Containerd,
    settings: Settings,
    ingest: Ingest,
    lease: Lease,
    way: Way | None,
    size: int,
    named: bool,
) -> None:
    """The same bytes in two namespaces are one file, which stays as long as one of them has it."""
    data = random_bytes(size)
    digest = ingest.ingest(BytesSource(data), lease, way=way).digest
    inode = blob_file(backing, digest).stat().st_ino
    other = replace(settings, namespace=f"{settings.namespace}-b")
    with_other = containerd.in_namespace(other.namespace)
    second = backing_for(with_other, other)
    try:
        with Leasing(second).hold("test") as held:
            result = Ingest(second).ingest(
                BytesSource(data), held, expected=digest if named else None, way=way
            )
            assert result.created
            assert blob_file(second, digest).stat().st_ino == inode
            lease.release()
            backing.leases.collect_garbage()
            assert not is_stored(backing, digest)
            assert stored_bytes(second, digest) == data
    finally:
        empty_namespace(with_other)


def test_blob_existing_of_another_size_is_refused(ingest: Ingest, lease: Lease) -> None:
    """A right digest with a wrong size is a wrong claim, also when nothing is read."""
    data = random_bytes(SMALL)
    ingest.ingest(BytesSource(data), lease)
    with pytest.raises(SizeMismatchError) as caught:
        ingest.ingest(BytesSource(data), lease, expected=Digest.of(data), size=SMALL + 1)
    assert (caught.value.details["expected"], caught.value.details["actual"]) == (SMALL + 1, SMALL)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_blob_existing_gains_missing_labels_and_keeps_its_media_type(
    backing: Backing, ingest: Ingest, lease: Lease, size: int
) -> None:
    """A second ingest adds what is missing and takes nothing away."""
    data = random_bytes(size)
    ingest.ingest(BytesSource(data), lease, media_type="a/b", labels={"example.org/a": "1"})
    ingest.ingest(BytesSource(data), lease, media_type="c/d", labels={"example.org/b": "2"})
    assert labels_of(backing, Digest.of(data)) == {
        MEDIA_TYPE: "a/b",
        "example.org/a": "1",
        "example.org/b": "2",
    }


@all_sizes
def test_source_missing_is_reported_if_the_digest_is_not_there(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int, tmp_path: Path
) -> None:
    """Without source and without blob there is nothing to succeed with."""
    digest = Digest.of(random_bytes(size))
    for expected in (None, digest):
        with pytest.raises(SourceNotFoundError):
            ingest.ingest(FileSource(tmp_path / "missing"), lease, expected=expected, way=way)
    lease.release()
    assert_never_stored(backing, digest)


def test_source_that_is_a_directory_is_refused(
    ingest: Ingest, lease: Lease, tmp_path: Path
) -> None:
    """A directory is no blob."""
    with pytest.raises(UsageError, match="directory"):
        ingest.ingest(FileSource(tmp_path), lease)


@all_sizes
def test_digest_wrong_leaves_nothing_and_says_both(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """The error names expected and actual digest; no trace of the bytes stays."""
    data = random_bytes(size)
    wrong = Digest.of(b"something else")
    with pytest.raises(DigestMismatchError) as caught:
        ingest.ingest(BytesSource(data), lease, expected=wrong, way=way)
    assert caught.value.details["expected"] == wrong
    assert caught.value.details["actual"] == Digest.of(data)
    lease.release()
    assert_never_stored(backing, wrong, Digest.of(data))


@all_sizes
@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("hinted", [True, False])
def test_size_wrong_leaves_nothing_and_says_both(
    backing: Backing,
    ingest: Ingest,
    lease: Lease,
    way: Way | None,
    size: int,
    difference: int,
    hinted: bool,
) -> None:
    """Too short and too long are found, whether the source's size is known before or not."""
    data = random_bytes(size)
    source = WatchedSource(data, hinted=hinted)
    with pytest.raises(SizeMismatchError) as caught:
        ingest.ingest(source, lease, size=size + difference, way=way)
    assert caught.value.details["expected"] == size + difference
    assert caught.value.details["actual"] == size
    assert bool(source.offsets) is not hinted
    lease.release()
    assert_never_stored(backing, Digest.of(data))


@both_ways
def test_source_endless_is_read_no_further_than_its_size(
    ingest: Ingest, lease: Lease, way: Way
) -> None:
    """A source that never ends costs no more than a chunk beyond the claimed size."""
    with Path("/dev/zero").open("rb") as stream, pytest.raises(SizeMismatchError):
        ingest.ingest(StreamSource(stream, "zeros"), lease, size=3 * CHUNK_BYTES, way=way)


@pytest.mark.parametrize("way", [None, *WAYS])
def test_blob_above_the_limit_is_refused(backing: Backing, lease: Lease, way: Way | None) -> None:
    """A blob may not be larger than the limit, known before or found while reading."""
    limited = replace(backing, limits=replace(Limits(), blob_bytes=3 * CHUNK_BYTES))
    ingest = Ingest(limited)
    with pytest.raises(LimitExceededError):
        ingest.ingest(BytesSource(random_bytes(LARGE)), lease, way=way)
    with Path("/dev/zero").open("rb") as stream, pytest.raises(LimitExceededError):
        ingest.ingest(StreamSource(stream, "zeros"), lease, way=way)
    lease.release()
    assert_nothing_left(backing)


@both_ways
@pytest.mark.parametrize("named", [True, False])
def test_cancellation_leaves_nothing(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way, named: bool
) -> None:
    """A stop between two chunks undoes everything."""
    data = random_bytes(LARGE)
    cancel = Cancellation()
    source = WatchedSource(data, lambda number: cancel.set() if number == 3 else None)
    with pytest.raises(InterruptedOperationError):
        ingest.ingest(
            source, lease, expected=Digest.of(data) if named else None, way=way, cancel=cancel
        )
    assert source.bytes_read < LARGE
    lease.release()
    assert_never_stored(backing, Digest.of(data))


@both_ways
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_failure_of_the_source_leaves_nothing(
    backing: Backing,
    ingest: Ingest,
    lease: Lease,
    way: Way,
    named: bool,
    error: BaseException,
) -> None:
    """Ctrl-C and whatever else comes out of reading undo everything and come out unchanged."""
    data = random_bytes(LARGE)

    def fail(number: int) -> None:
        if number == 3:
            raise error

    with pytest.raises(type(error)):
        ingest.ingest(
            WatchedSource(data, fail), lease, expected=Digest.of(data) if named else None, way=way
        )
    lease.release()
    assert_never_stored(backing, Digest.of(data))


def test_file_that_cannot_be_read_is_a_storage_error(ingest: Ingest, lease: Lease) -> None:
    """A failed read of the source is told as such, with the file's name."""
    with pytest.raises(StorageError, match="/proc/self/mem"):
        ingest.ingest(FileSource(Path("/proc/self/mem")), lease)


@all_sizes
def test_lease_lost_aborts_and_leaves_nothing(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """Without its lease an ingest fails instead of storing what nothing keeps."""
    data = random_bytes(size)

    def lose(number: int) -> None:
        if number == 0:
            backing.leases.delete(lease.id, sync=True)

    with pytest.raises(LeaseNotFoundError):
        ingest.ingest(WatchedSource(data, lose), lease, way=way)
    assert not is_stored(backing, Digest.of(data))
    assert list(backing.content.iter_ingests()) == []
    assert names(backing.layout.stage) == []


@all_sizes
def test_file_lost_is_replaced_with_labels_and_children_kept(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """A record whose file is gone is healed by another ingest; what it holds alone survives."""
    data = random_bytes(size)
    digest = Digest.of(data)
    with Leasing(backing).hold("before") as before:
        child = ingest.ingest(BytesSource(b"child of " + data[:32]), before).digest
        refers = {f"{GC_REF_CONTENT}.0": str(child), **ROOTED}
        ingest.ingest(BytesSource(data), before, labels=refers, media_type="a/b", way=way)
    blob_file(backing, digest).unlink()
    with Collections(backing) as collections:
        result = ingest.ingest(
            BytesSource(data), lease, expected=digest, labels={"example.org/n": "1"}, way=way
        )
        collections.wait()
    assert result.created
    assert stored_bytes(backing, digest) == data
    assert labels_of(backing, digest) == {**refers, MEDIA_TYPE: "a/b", "example.org/n": "1"}
    assert is_stored(backing, child)


@all_sizes
def test_file_truncated_is_replaced_and_kept_in_quarantine(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """A file of the wrong size is set aside, not destroyed, and the right bytes take its place."""
    data = random_bytes(size)
    digest = ingest.ingest(BytesSource(data), lease, labels=ROOTED, way=way).digest
    os.truncate(blob_file(backing, digest), 100)
    assert ingest.ingest(BytesSource(data), lease, way=way).created
    assert stored_bytes(backing, digest) == data
    [aside] = names(backing.layout.quarantine)
    assert aside.startswith(digest.hex)


@all_sizes
def test_callers_at_once_share_one_ingest(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """Several callers with one expected digest read one source, once."""
    data = random_bytes(size)
    digest = Digest.of(data)
    ready = threading.Barrier(4)
    sources = [WatchedSource(data) for _ in range(4)]

    def run(source: WatchedSource) -> bool:
        ready.wait()
        return ingest.ingest(source, lease, expected=digest, way=way).created

    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(run, sources))
    assert sorted(created) == [False, False, False, True]
    assert sum(len(source.offsets) for source in sources) == 1
    lease.release()
    assert_nothing_left(backing)


@all_sizes
def test_callers_at_once_without_digest_make_one_blob(
    backing: Backing, ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """Several callers who do not know that they bring the same bytes make one blob of them."""
    data = random_bytes(size)
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: ingest.ingest(BytesSource(data), lease, way=way), range(4))
        )
    assert {result.digest for result in results} == {Digest.of(data)}
    assert sum(result.created for result in results) == 1
    assert own_blobs(backing) == {Digest.of(data)}


@all_sizes
def test_progress_tells_all_bytes_and_the_end(
    ingest: Ingest, lease: Lease, way: Way | None, size: int
) -> None:
    """Whoever watches sees as many bytes as there are, and the end."""

    class Watch:
        def __init__(self) -> None:
            self.told: list[tuple[str, object]] = []

        def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
            self.told.append(("start", total))

        def advance(self, action: str, item: str, amount: int) -> None:
            self.told.append(("advance", amount))

        def finish(self, action: str, item: str) -> None:
            self.told.append(("finish", None))

    watch = Watch()
    ingest.ingest(BytesSource(random_bytes(size)), lease, way=way, progress=watch)
    assert watch.told[0] == ("start", size)
    assert watch.told[-1] == ("finish", None)
    assert sum(int(str(value)) for kind, value in watch.told if kind == "advance") == size


def test_seeding_is_available_and_leaves_no_trace_of_its_test(
    backing: Backing, ingest: Ingest
) -> None:
    """The self-test says yes on a containerd within reach, and removes its blob."""
    assert ingest.seeding_available() == (True, "containerd took a seeded blob")
    assert own_blobs(backing) == set()
    assert_nothing_left(backing)


def test_blobs_out_of_reach_are_streamed(backing: Backing, lease: Lease) -> None:
    """Where the blobs directory cannot be seen every blob is streamed, and seeding refused."""
    distant = Ingest(replace(backing, blobs_directory=None))
    data = random_bytes(LARGE)
    assert distant.ingest(BytesSource(data), lease).way is Way.STREAM
    available, reason = distant.seeding_available()
    assert not available
    assert "within reach" in reason
    with pytest.raises(DaemonVersionError, match="within reach"):
        distant.ingest(BytesSource(random_bytes(LARGE)), lease, way=Way.SEED)


@pytest.mark.parametrize("named", [True, False])
def test_directory_that_containerd_does_not_use_is_noticed_and_streamed(
    backing: Backing, named: bool
) -> None:
    """Files linked where containerd does not look are removed again, and the bytes streamed."""
    elsewhere = backing.layout.case / "elsewhere"
    elsewhere.mkdir()
    try:
        mistaken = Ingest(replace(backing, blobs_directory=elsewhere))
        data = random_bytes(LARGE)
        digest = Digest.of(data)
        with Leasing(backing).hold("test") as lease:
            result = mistaken.ingest(BytesSource(data), lease, expected=digest if named else None)
            assert (result.way, result.created) == (Way.STREAM, True)
            assert stored_bytes(backing, digest) == data
            assert names(elsewhere) == []
            assert names(backing.layout.quarantine) == []
            available, reason = mistaken.seeding_available()
            assert not available
            assert "does not see" in reason
        assert_nothing_left(backing)
    finally:
        elsewhere.rmdir()


@pytest.fixture
def isolated(containerd_binary: str) -> Iterator[Backing]:
    """A store on a containerd whose namespaces share no content."""
    with persist_directory() as directory:
        settings = settings_for(directory, containerd_binary)
        create_directories(settings, repair=True)
        text = config.render(settings).replace('"shared"', '"isolated"')
        assert '"isolated"' in text
        settings.layout.run.mkdir(exist_ok=True)
        (directory / "config.toml").write_text(text)
        command = [containerd_binary, "--config", str(directory / "config.toml")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                with connect(settings) as containerd:
                    yield backing_for(containerd, settings)
            finally:
                process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_containerd_that_shares_nothing_gets_blobs_streamed(
    isolated: Backing, named: bool, tmp_path: Path
) -> None:
    """Where content sharing is off the first large blob finds out, and none is lost."""
    ingest = Ingest(isolated)
    (tmp_path / "f").write_bytes(data := random_bytes(LARGE))
    with Leasing(isolated).hold("test") as lease:
        result = ingest.ingest(
            FileSource(tmp_path / "f"),
            lease,
            expected=Digest.of(data) if named else None,
            move=True,
        )
        assert (result.way, result.created) == (Way.STREAM, True)
        assert stored_bytes(isolated, result.digest) == data
        assert not (tmp_path / "f").exists()
        with pytest.raises(DaemonVersionError, match="does not see"):
            ingest.ingest(BytesSource(random_bytes(LARGE)), lease, way=Way.SEED)
    assert names(isolated.layout.quarantine) == []
    assert_nothing_left(isolated)


def test_move_of_something_that_is_no_file_is_refused(ingest: Ingest, lease: Lease) -> None:
    """Only files can be moved."""
    with pytest.raises(UsageError):
        ingest.ingest(BytesSource(b"x"), lease, move=True)


def test_ingest_is_refused_when_the_metadata_is_lost(backing: Backing) -> None:
    """A failed ingest could make containerd wipe the orphans of a lost database, so none begins."""
    backing.layout.store_marker(backing.namespace).parent.mkdir(exist_ok=True)
    backing.layout.store_marker(backing.namespace).write_bytes(b"{}")
    with Leasing(backing).hold("test") as lease, pytest.raises(StoreMetadataLostError):
        Ingest(backing).ingest(BytesSource(b"x"), lease)
