"""Records and bytes of committed blobs, on a real containerd."""

from contextlib import closing

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    LimitExceededError,
    UsageError,
)
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import CHUNK_BYTES
from cas.model.records import BlobInfo, LeaseID

DATA = b"content of a blob"
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"absent")


@pytest.fixture
def stored(containerd: Containerd, lease: LeaseID) -> Containerd:
    """A store with one blob."""
    containerd.content.put("r", lease, DATA, DIGEST, {"a": "1", "x/y.z": "2"})
    return containerd


def test_info_absent_blob_is_not_found(containerd: Containerd) -> None:
    """And nothing else."""
    with pytest.raises(BlobNotFoundError, match=ABSENT.hex):
        containerd.content.info(ABSENT)


def test_info_times_are_aware(stored: Containerd) -> None:
    """Instants are UTC."""
    offset = stored.content.info(DIGEST).created.utcoffset()
    assert offset is not None
    assert not offset


def test_iter_blobs_filter_selects_by_label(stored: Containerd, lease: LeaseID) -> None:
    """Filters are containerd's own."""
    stored.content.put("r2", lease, b"other", Digest.of(b"other"), {"a": "2"})
    found = [blob.digest for blob in stored.content.iter_blobs(['labels."a"==2'])]
    assert found == [Digest.of(b"other")]


@pytest.mark.slow
def test_iter_blobs_tells_no_change_before_the_making(stored: Containerd) -> None:
    """containerd 1.6 lists blobs as changed in the year 1; a prune begins with the oldest."""
    assert all(blob.updated >= blob.created for blob in stored.content.iter_blobs())


def test_iter_blobs_many_come_in_order_of_digest(containerd: Containerd, lease: LeaseID) -> None:
    """Lists longer than one message are whole."""
    blobs = [str(number).encode() for number in range(150)]
    for number, data in enumerate(blobs):
        containerd.content.put(f"r{number}", lease, data, Digest.of(data), {})
    digests = [blob.digest for blob in containerd.content.iter_blobs()]
    assert digests == sorted(Digest.of(data) for data in blobs)


def test_iter_blobs_closed_early_leaves_a_working_connection(stored: Containerd) -> None:
    """A list need not be read to its end."""
    blobs = stored.content.iter_blobs()
    assert next(blobs).digest == DIGEST
    blobs.close()  # type: ignore[attr-defined]  # it is a generator
    assert stored.content.info(DIGEST).size == len(DATA)


def test_update_labels_changes_only_those_named(stored: Containerd) -> None:
    """A value sets, None removes, the rest stays; again changes nothing."""
    for _ in range(2):
        info = stored.content.update_labels(DIGEST, {"x/y.z": None, "new": "3"})
        assert info.labels == {"a": "1", "new": "3"}
    assert stored.content.update_labels(DIGEST, {}).labels == {"a": "1", "new": "3"}


def test_update_labels_absent_blob_is_not_found(containerd: Containerd) -> None:
    """Labels do not make a blob."""
    with pytest.raises(BlobNotFoundError):
        containerd.content.update_labels(ABSENT, {"a": "b"})


def test_delete_blob_twice_tells_whether_it_was_there(stored: Containerd) -> None:
    """Deleting is idempotent."""
    assert stored.content.delete(DIGEST) is True
    assert stored.content.delete(DIGEST) is False


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 0, DATA), (3, 0, DATA[3:]), (3, 4, DATA[3:7]), (10, 1000, DATA[10:]), (17, 0, b"")],
)
def test_read_range_gives_those_bytes(
    stored: Containerd, offset: int, size: int, expected: bytes
) -> None:
    """Size 0 means to the end; beyond the end is cut."""
    with closing(stored.content.read(DIGEST, offset=offset, size=size)) as chunks:
        assert b"".join(chunks) == expected


def test_read_beyond_the_end_is_refused(stored: Containerd) -> None:
    """An offset that cannot be is the caller's mistake."""
    with pytest.raises(UsageError):
        list(stored.content.read(DIGEST, offset=len(DATA) + 1))


def test_read_large_blob_comes_in_chunks(containerd: Containerd, lease: LeaseID) -> None:
    """No chunk is larger than 1 MiB."""
    data = bytes(3 * CHUNK_BYTES + 1)
    containerd.content.put("r", lease, data, Digest.of(data), {})
    sizes = [len(chunk) for chunk in containerd.content.read(Digest.of(data))]
    assert sum(sizes) == len(data)
    assert max(sizes) <= CHUNK_BYTES


def test_read_absent_blob_is_not_found(containerd: Containerd) -> None:
    """Raised at the first chunk."""
    with pytest.raises(BlobNotFoundError):
        next(containerd.content.read(ABSENT))


def test_read_blob_that_comes_after_the_question_is_read(
    containerd: Containerd, lease: LeaseID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that is found after containerd had no file is not taken for one without a file."""
    info = containerd.content.info

    def come(digest: Digest) -> BlobInfo:
        containerd.content.put("r", lease, DATA, DIGEST, {})
        monkeypatch.undo()
        return info(digest)

    monkeypatch.setattr(containerd.content, "info", come)
    assert containerd.content.read_all(DIGEST, limit=100) == DATA


def test_read_blob_whose_file_is_gone_is_corrupt(stored: Containerd) -> None:
    """containerd gives the same answer for both; we do not."""
    assert stored.blobs_directory is not None
    (stored.blobs_directory / DIGEST.hex).unlink()
    with pytest.raises(CorruptBlobError, match="file is gone"):
        stored.content.read_all(DIGEST, limit=100)


def test_read_all_changed_file_is_corrupt(stored: Containerd) -> None:
    """A document is never parsed from bytes of another digest."""
    assert stored.blobs_directory is not None
    path = stored.blobs_directory / DIGEST.hex
    path.chmod(0o644)
    path.write_bytes(DATA.upper())
    with pytest.raises(CorruptBlobError) as caught:
        stored.content.read_all(DIGEST, limit=100)
    assert caught.value.details["actual"] == Digest.of(DATA.upper())


def test_read_all_at_its_limit_passes_and_above_it_fails(stored: Containerd) -> None:
    """Memory is bounded by the caller's limit."""
    assert stored.content.read_all(DIGEST, limit=len(DATA)) == DATA
    with pytest.raises(LimitExceededError):
        stored.content.read_all(DIGEST, limit=len(DATA) - 1)


def test_collection_unreferenced_blob_goes_and_rooted_blob_stays(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A root label in the commit keeps a blob without anybody's lease."""
    kept, lost = b"kept", b"lost"
    containerd.content.put("r1", lease, kept, Digest.of(kept), {GC_ROOT: "now"})
    containerd.content.put("r2", lease, lost, Digest.of(lost), {})
    assert containerd.blobs_directory is not None
    files = [containerd.blobs_directory / Digest.of(data).hex for data in (kept, lost)]
    assert [path.exists() for path in files] == [True, True]

    containerd.leases.delete(lease)
    containerd.leases.collect_garbage()

    assert [blob.digest for blob in containerd.content.iter_blobs()] == [Digest.of(kept)]
    assert [path.exists() for path in files] == [True, False]
