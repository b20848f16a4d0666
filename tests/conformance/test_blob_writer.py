"""What the store relies on when it writes blobs, proved on a real containerd."""

import os
from collections.abc import Callable, Iterator

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    AlreadyExistsError,
    BlobNotFoundError,
    DigestMismatchError,
    InvalidNameError,
    LeaseNotFoundError,
    LockTimeoutError,
    SizeMismatchError,
)
from cas.model.digest import Digest
from cas.model.labels import MAX_LABEL_BYTES
from cas.model.limits import CHUNK_BYTES
from cas.model.records import LeaseID, LeaseResource
from cas.store import ports

DATA = b"content of a blob"
DIGEST = Digest.of(DATA)
NO_LEASE = LeaseID("nobody-made-it")


@pytest.fixture
def content(containerd: Containerd) -> ports.ContentStore:
    """The port under test."""
    return containerd.content


@pytest.fixture
def neighbour(containerd: Containerd) -> Iterator[Containerd]:
    """Another namespace on the same containerd, emptied after the test."""
    neighbour = containerd.in_namespace(f"{containerd.namespace}-n")
    neighbour.leases.create(LeaseID("neighbour"), {})
    yield neighbour
    for blob in list(neighbour.content.iter_blobs()):
        neighbour.content.delete(blob.digest)
    neighbour.leases.delete(LeaseID("neighbour"), sync=True)
    neighbour.namespaces.delete(neighbour.namespace)


def _refs(content: ports.ContentStore) -> list[str]:
    return [ingest.ref for ingest in content.iter_ingests()]


def test_put_new_blob_is_there_with_its_labels_and_bytes(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """One message stores bytes and labels together."""
    assert content.put("r", lease, DATA, DIGEST, {"a/b": "c"}) is True

    info = content.info(DIGEST)
    assert (info.size, info.labels) == (len(DATA), {"a/b": "c"})
    assert content.read_all(DIGEST, limit=100) == DATA
    assert _refs(content) == []


def test_put_empty_blob_is_stored(content: ports.ContentStore, lease: LeaseID) -> None:
    """Nothing is content, too."""
    assert content.put("r", lease, b"", Digest.of(b""), {}) is True
    assert content.read_all(Digest.of(b""), limit=0) == b""


def test_put_existing_blob_returns_false_and_leaves_labels(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """The content is there, which is what was asked for."""
    content.put("r", lease, DATA, DIGEST, {"a": "1"})
    assert content.put("r2", lease, DATA, DIGEST, {"a": "2"}) is False
    assert content.info(DIGEST).labels == {"a": "1"}


def test_put_existing_blob_is_held_by_the_second_lease_as_well(
    containerd: Containerd, lease: LeaseID
) -> None:
    """What a caller was told is there stays while their lease lives."""
    first = containerd.leases.create(LeaseID("first"), {}).id
    containerd.content.put("r", first, DATA, DIGEST, {})
    containerd.content.put("r2", lease, DATA, DIGEST, {})

    containerd.leases.delete(first, sync=True)

    assert containerd.content.read_all(DIGEST, limit=100) == DATA


def test_put_wrong_digest_is_refused_and_leaves_nothing(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """Neither the blob nor the other one nor an ingest stays behind."""
    other = Digest.of(b"other")
    with pytest.raises(DigestMismatchError) as caught:
        content.put("r", lease, DATA, other, {})

    assert caught.value.details == {"expected": other, "actual": DIGEST}
    assert list(content.iter_blobs()) == []
    assert _refs(content) == []


def test_put_too_long_label_is_refused_before_anything_is_sent(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """containerd would refuse the commit only after taking the bytes."""
    with pytest.raises(InvalidNameError):
        content.put("r", lease, DATA, DIGEST, {"a": "x" * MAX_LABEL_BYTES})
    assert _refs(content) == []


def test_put_in_one_namespace_does_not_show_in_another(
    content: ports.ContentStore, neighbour: Containerd, lease: LeaseID
) -> None:
    """Equal bytes share a file; the records are apart, and each commit verifies its bytes."""
    assert neighbour.content.put("r", LeaseID("neighbour"), DATA, DIGEST, {}) is True
    with pytest.raises(BlobNotFoundError):
        content.info(DIGEST)
    assert content.put("r", lease, DATA, DIGEST, {}) is True


@pytest.mark.parametrize(
    "write",
    [
        lambda content: content.put("r", NO_LEASE, DATA, DIGEST, {}),
        lambda content: content.open_writer("r", NO_LEASE, total=None),
        lambda content: content.adopt("r", NO_LEASE, DIGEST, len(DATA), {}),
    ],
    ids=["put", "open_writer", "adopt"],
)
def test_writing_without_a_live_lease_fails_as_lost_lease(
    content: ports.ContentStore, write: Callable[[ports.ContentStore], object]
) -> None:
    """No process writes content without a live lease."""
    with pytest.raises(LeaseNotFoundError):
        write(content)


def test_writer_many_chunks_are_committed_under_their_digest(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """More messages than are on the way at once arrive whole and in order."""
    chunks = [os.urandom(CHUNK_BYTES) for _ in range(9)]
    data = b"".join(chunks)
    with content.open_writer("r", lease, total=len(data)) as writer:
        for chunk in chunks:
            writer.write(chunk)
        assert writer.offset == len(data)
        assert writer.digest == Digest.of(data)
        assert writer.commit(len(data), Digest.of(data), {"k": "v"}) is True

    assert b"".join(content.read(Digest.of(data))) == data
    assert content.info(Digest.of(data)).labels == {"k": "v"}
    assert _refs(content) == []


def test_writer_without_total_commits_what_came(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """A stream of unknown length can be stored."""
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)
        assert writer.commit(len(DATA), DIGEST, {}) is True


def test_writer_closed_and_opened_again_goes_on(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """Offset and digest of the second opening are those of what the first one wrote."""
    with content.open_writer("r", lease, total=len(DATA)) as writer:
        writer.write(DATA[:7])
    with content.open_writer("r", lease, total=len(DATA)) as writer:
        assert writer.offset == 7
        assert writer.digest == Digest.of(DATA[:7])
        writer.write(DATA[7:])
        assert writer.commit(len(DATA), DIGEST, {}) is True


def test_writer_closed_frees_the_ref_at_once(content: ports.ContentStore, lease: LeaseID) -> None:
    """Closing waits until containerd has let go, so that nobody has to retry."""
    for round_number in range(5):
        with content.open_writer("r", lease, total=5) as writer:
            assert writer.offset == round_number
            writer.write(b"x")


def test_writer_left_by_an_exception_can_be_opened_again(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """A stream that was broken off does not keep its ref."""

    def interrupted() -> None:
        with content.open_writer("r", lease, total=None) as writer:
            writer.write(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with content.open_writer("r", lease, total=None) as writer:
        assert writer.offset in (0, len(DATA))


def test_writer_restarted_forgets_what_was_written(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """Longer content that was there before leaves no trace in the blob."""
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(b"something longer than the content that follows")
        writer.restart()
        writer.restart()
        assert writer.offset == 0
        assert writer.digest == Digest.of(b"")
        writer.write(DATA)
        assert writer.digest == DIGEST
        assert writer.commit(len(DATA), DIGEST, {}) is True
    assert content.read_all(DIGEST, limit=100) == DATA


def test_writer_opened_with_another_total_begins_anew(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """containerd would keep the old bytes behind the new ones and refuse the commit."""
    with content.open_writer("r", lease, total=1000) as writer:
        writer.write(b"x" * 500)
    with content.open_writer("r", lease, total=len(DATA)) as writer:
        assert writer.offset == 0
        writer.write(DATA)
        assert writer.commit(len(DATA), DIGEST, {}) is True


def test_writer_wrong_digest_is_refused_with_both_digests(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """Nothing is visible, and the ref can be aborted at once."""
    other = Digest.of(b"other")
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)
        with pytest.raises(DigestMismatchError) as caught:
            writer.commit(len(DATA), other, {})

    assert caught.value.details == {"expected": other, "actual": DIGEST}
    assert list(content.iter_blobs()) == []
    assert content.abort("r") is True


def test_writer_wrong_size_is_refused_with_both_sizes(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """A truncated source is told from a changed one."""
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)
        with pytest.raises(SizeMismatchError) as caught:
            writer.commit(len(DATA) + 1, DIGEST, {})

    assert (caught.value.details["expected"], caught.value.details["actual"]) == (18, 17)
    assert list(content.iter_blobs()) == []


def test_writer_commit_of_existing_blob_returns_false_and_drops_the_ingest(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """Somebody else was faster; their blob stays as it is."""
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)
        content.put("faster", lease, DATA, DIGEST, {"who": "faster"})
        assert writer.commit(len(DATA), DIGEST, {"who": "slower"}) is False

    assert content.info(DIGEST).labels == {"who": "faster"}
    assert _refs(content) == []


def test_writer_ref_open_elsewhere_is_refused_after_a_bounded_wait(
    content: ports.ContentStore, lease: LeaseID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers never share a ref."""
    monkeypatch.setattr("cas.containerd.write_stream._REF_LOCK_SECONDS", 0.1)
    with content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)
        with pytest.raises(LockTimeoutError, match="somebody else"):
            content.open_writer("r", lease, total=None)
        assert writer.commit(len(DATA), DIGEST, {}) is True


def test_writer_closed_twice_is_fine(content: ports.ContentStore, lease: LeaseID) -> None:
    """Resources may be closed again."""
    writer = content.open_writer("r", lease, total=None)
    writer.close()
    writer.close()


def test_ingest_open_is_listed_and_aborted_once(
    content: ports.ContentStore, lease: LeaseID
) -> None:
    """An ingest says how far it is; aborting what is not there is no error."""
    with content.open_writer("r", lease, total=len(DATA)) as writer:
        writer.write(DATA[:5])
    [ingest] = content.iter_ingests()

    assert (ingest.ref, ingest.offset, ingest.total) == ("r", 5, len(DATA))
    assert content.abort("r") is True
    assert content.abort("r") is False
    assert _refs(content) == []


def test_ingest_ends_with_its_lease(containerd: Containerd) -> None:
    """What an interrupted caller left goes when their lease is reaped."""
    lease = containerd.leases.create(LeaseID("dying"), {}).id
    with containerd.content.open_writer("r", lease, total=None) as writer:
        writer.write(DATA)

    containerd.leases.delete(lease, sync=True)

    assert _refs(containerd.content) == []


def _place(containerd: Containerd, data: bytes) -> Digest:
    directory = containerd.blobs_directory
    assert directory is not None
    directory.mkdir(parents=True, exist_ok=True)
    (directory / Digest.of(data).hex).write_bytes(data)
    return Digest.of(data)


def test_adopt_file_in_the_blobs_directory_becomes_a_blob(
    containerd: Containerd, lease: LeaseID
) -> None:
    """It is registered with its labels, held by the lease, and nothing was sent."""
    data = os.urandom(1000)
    digest = _place(containerd, data)

    assert containerd.content.adopt("r", lease, digest, len(data), {"a": "b"}) is True

    containerd.leases.collect_garbage()
    assert containerd.content.info(digest).labels == {"a": "b"}
    assert containerd.content.read_all(digest, limit=1000) == data
    assert LeaseResource("content", str(digest)) in containerd.leases.iter_resources(lease)


def test_adopt_existing_blob_updates_its_labels(containerd: Containerd, lease: LeaseID) -> None:
    """A second caller gets what they asked for as well."""
    digest = _place(containerd, DATA)
    containerd.content.adopt("r", lease, digest, len(DATA), {"a": "1", "b": "1"})

    assert containerd.content.adopt("r2", lease, digest, len(DATA), {"a": "2"}) is True

    assert containerd.content.info(digest).labels == {"a": "2", "b": "1"}


def test_adopt_missing_file_returns_false_and_leaves_nothing(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A collection may remove the file before it is registered."""
    # Content of its own: other namespaces' files are shared, and other tests store DATA.
    absent = os.urandom(17)
    assert containerd.content.adopt("r", lease, Digest.of(absent), len(absent), {}) is False
    assert list(containerd.content.iter_blobs()) == []
    assert _refs(containerd.content) == []


def test_adopt_file_of_another_size_returns_false(containerd: Containerd, lease: LeaseID) -> None:
    """containerd does not take the file for the blob that was meant."""
    digest = _place(containerd, DATA)
    assert containerd.content.adopt("r", lease, digest, len(DATA) + 1, {}) is False
    assert list(containerd.content.iter_blobs()) == []


def test_adopt_empty_file_becomes_a_blob(containerd: Containerd, lease: LeaseID) -> None:
    """An empty blob has no offset that could prove anything, and needs none."""
    digest = _place(containerd, b"")
    assert containerd.content.adopt("r", lease, digest, 0, {}) is True
    assert containerd.content.read_all(digest, limit=0) == b""


def test_create_lease_twice_is_refused(containerd: Containerd, lease: LeaseID) -> None:
    """An id has one owner."""
    with pytest.raises(AlreadyExistsError):
        containerd.leases.create(lease, {})
