"""What a killed ingest left is gone on with where it can be used, and thrown away where not."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import DigestMismatchError
from cas.fsops.locks import lock
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.model.records import LeaseID
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.hashing import digest_of
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import FileSource
from cas.store.image.archives.archive import AbsentSource
from cas.store.leasing import Lease, Leasing
from cas.store.ports import Writer
from tests.support.stores import (
    WatchedSource,
    assert_never_stored,
    assert_nothing_left,
    backing_for,
    names,
    random_bytes,
)

LARGE = 5 * CHUNK_BYTES + 4321
PART = 2 * CHUNK_BYTES + 17


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


def leave_partial(backing: Backing, digest: Digest, data: bytes) -> Path:
    """Put down what a killed ingest by seed leaves."""
    path = backing.layout.staged(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def leave_ingest(backing: Backing, digest: Digest, data: bytes, total: int) -> None:
    """Put down what a killed ingest by stream leaves; its lease is left as well."""
    lease = LeaseID(f"killed-{digest.hex[:8]}")
    backing.leases.create(lease, {})
    with backing.content.open_writer(f"cas-ingest-{digest.hex}", lease, total=total) as writer:
        writer.write(data)


class Sent:
    """The content store, counting what is written."""

    def __init__(self, backing: Backing) -> None:
        self._content = backing.content
        self.count = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._content, name)

    def open_writer(self, ref: str, lease: LeaseID, *, total: int | None) -> Writer:
        writer = self._content.open_writer(ref, lease, total=total)
        write = writer.write

        def counted(data: bytes) -> object:
            self.count += len(data)
            return write(data)

        writer.write = counted  # type: ignore[method-assign]
        return writer


def test_partial_file_is_gone_on_with(backing: Backing, ingest: Ingest, lease: Lease) -> None:
    """Only the rest is read from the source."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_partial(backing, digest, data[:PART])
    source = WatchedSource(data)
    assert ingest.ingest(source, lease, expected=digest).way is Way.SEED
    assert source.offsets == [PART]
    assert source.bytes_read == LARGE - PART
    assert b"".join(backing.content.read(digest)) == data
    lease.release()
    assert_nothing_left(backing)


def test_partial_file_that_is_whole_needs_no_reading(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """A file that was complete and sealed when the process died is taken as it is."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_partial(backing, digest, data).chmod(0o444)
    source = WatchedSource(data)
    ingest.ingest(source, lease, expected=digest)
    assert source.bytes_read == 0
    assert b"".join(backing.content.read(digest)) == data


@pytest.mark.parametrize("length", [PART, LARGE, LARGE + 1])
def test_partial_file_of_other_bytes_is_begun_again(
    backing: Backing, ingest: Ingest, lease: Lease, length: int
) -> None:
    """What a power cut made of a partial file costs one more reading, not the ingest."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_partial(backing, digest, bytes(length))
    source = WatchedSource(data)
    ingest.ingest(source, lease, expected=digest)
    assert source.offsets[-1] == 0
    assert b"".join(backing.content.read(digest)) == data


def test_partial_file_and_wrong_source_are_reported_after_one_more_reading(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """A source that is wrong stays wrong; the second reading is the last."""
    data = random_bytes(LARGE)
    wrong = Digest.of(b"wrong")
    leave_partial(backing, wrong, data[:PART])
    source = WatchedSource(data)
    with pytest.raises(DigestMismatchError) as caught:
        ingest.ingest(source, lease, expected=wrong)
    assert caught.value.details["actual"] == Digest.of(data)
    assert source.offsets == [PART, 0]
    lease.release()
    assert_never_stored(backing, wrong, Digest.of(data))


def test_partial_file_is_not_used_for_a_stream_that_is_read_once(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """A source without a second reading is stored from its own bytes alone."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_partial(backing, digest, bytes(PART))
    source = WatchedSource(data, repeatable=False)
    ingest.ingest(source, lease, expected=digest)
    assert source.bytes_read == LARGE
    assert b"".join(backing.content.read(digest)) == data
    lease.release()
    assert_nothing_left(backing)


@pytest.mark.parametrize("kind", ["link", "alias", "owner"])
def test_partial_file_that_is_not_ours_alone_is_not_used(
    backing: Backing, ingest: Ingest, lease: Lease, kind: str, tmp_path: Path
) -> None:
    """What others could write into, now or later, is neither read nor written."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    path = leave_partial(backing, digest, data[:PART])
    other = backing.layout.stage / "other"
    if kind == "link":
        path.replace(other)
        path.symlink_to(other)
    elif kind == "alias":
        os.link(path, other)
    else:
        os.chown(path, 12345, 12345)
    source = WatchedSource(data)
    ingest.ingest(source, lease, expected=digest)
    assert source.bytes_read == LARGE
    if kind != "owner":
        assert other.read_bytes() == data[:PART]
        other.unlink()


def test_ingest_of_containerd_is_gone_on_with(backing: Backing, lease: Lease) -> None:
    """Only the rest is sent; all of it is hashed here."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_ingest(backing, digest, data[:PART], LARGE)
    sent = Sent(backing)
    ingest = Ingest(replace(backing, content=sent))  # type: ignore[arg-type]
    source = WatchedSource(data)
    result = ingest.ingest(source, lease, expected=digest, way=Way.STREAM)
    assert (result.way, result.created) == (Way.STREAM, True)
    assert (source.bytes_read, sent.count) == (LARGE, LARGE - PART)
    assert b"".join(backing.content.read(digest)) == data


@pytest.mark.parametrize("length", [PART, LARGE])
def test_ingest_of_containerd_of_other_bytes_is_begun_again(
    backing: Backing, lease: Lease, length: int
) -> None:
    """What containerd holds is compared before anything is added to it."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_ingest(backing, digest, bytes(length), LARGE)
    sent = Sent(backing)
    ingest = Ingest(replace(backing, content=sent))  # type: ignore[arg-type]
    ingest.ingest(WatchedSource(data), lease, expected=digest, way=Way.STREAM)
    assert sent.count == LARGE
    assert b"".join(backing.content.read(digest)) == data


def test_ingest_of_containerd_longer_than_the_source_is_begun_again(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """A source that ends before containerd's bytes do is not waited for."""
    data = random_bytes(LARGE)
    digest = Digest.of(data)
    leave_ingest(backing, digest, data + b"more", 0)
    source = WatchedSource(data, hinted=False)
    ingest.ingest(source, lease, expected=digest, way=Way.STREAM)
    assert b"".join(backing.content.read(digest)) == data


def test_sweep_keeps_a_partial_file_once_and_removes_it_then(
    backing: Backing, ingest: Ingest
) -> None:
    """One recovery after the kill leaves what could be resumed, the next does not."""
    path = leave_partial(backing, Digest.of(b"x"), b"part")
    assert ingest.sweep() == []
    assert path.exists()
    assert ingest.sweep() == [path]
    assert ingest.sweep() == []
    assert names(backing.layout.stage) == []


def test_sweep_keeps_a_partial_file_that_was_gone_on_with(backing: Backing, ingest: Ingest) -> None:
    """Work between two recoveries counts as new."""
    path = leave_partial(backing, Digest.of(b"x"), b"part")
    ingest.sweep()
    os.utime(path, ns=(1, 1))
    assert ingest.sweep() == []


def test_sweep_spares_work_under_way_and_foreign_names(backing: Backing, ingest: Ingest) -> None:
    """A partial file whose digest is locked belongs to somebody; other names are not ours."""
    digest = Digest.of(b"x")
    path = leave_partial(backing, digest, b"part")
    foreign = path.with_name("foreign.partial")
    foreign.write_bytes(b"")
    ingest.sweep()
    with lock(backing.layout.lock("blob", digest.hex)):
        assert ingest.sweep() == []
    assert ingest.sweep() == []
    assert ingest.sweep() == [path]
    assert names(path.parent) == ["foreign.partial"]


def test_sweep_removes_a_second_name_of_a_blob_at_once(
    backing: Backing, ingest: Ingest, lease: Lease
) -> None:
    """A process killed between registering and dropping its staging name leaves two names."""
    data = random_bytes(LARGE)
    digest = ingest.ingest(WatchedSource(data), lease).digest
    path = backing.layout.staged(digest)
    assert backing.blobs_directory is not None
    os.link(backing.blobs_directory / digest.hex, path)
    assert ingest.sweep() == [path]
    assert b"".join(backing.content.read(digest)) == data


@pytest.mark.parametrize("asked", ["whether it is there", "to take the file"])
def test_blob_linked_by_a_killed_hand_over_is_adopted_with_one_name(
    backing: Backing, ingest: Ingest, lease: Lease, asked: str
) -> None:
    """Killed between linking and registering, it is neither set aside nor brought once more."""
    data = random_bytes(LARGE)
    digest = digest_of([data])[0]
    assert backing.blobs_directory is not None
    verified, blob = backing.layout.verified / digest.hex, backing.blobs_directory / digest.hex
    verified.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    verified.write_bytes(data)
    verified.chmod(0o444)
    os.link(verified, blob)
    inode = blob.stat().st_ino

    move = asked == "to take the file"
    source = FileSource(verified) if move else AbsentSource("blob")
    ingest.ingest(source, lease, expected=digest, size=len(data), move=move)

    assert (blob.stat().st_ino, blob.stat().st_nlink) == (inode, 1)
    assert not verified.exists()
    assert b"".join(backing.content.read(digest)) == data
