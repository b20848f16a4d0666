"""Blobs through the client: the library's promises, wherever the bytes lie."""

import io
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    DigestMismatchError,
    InterruptedOperationError,
    InUseError,
    InvalidNameError,
    SizeMismatchError,
    SourceNotFoundError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, MEDIA_TYPE, PIN_OWNER
from cas.rpc.client import Client
from cas.rpc.limits import PIECE_BYTES
from cas.store.content.intake import Way
from cas.store.filters import parse_blob_filters
from tests.support.images import layered_image
from tests.support.stores import assert_nothing_left, blob_file

DATA = os.urandom(3 * 1024 * 1024 + 17)
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"absent")


@pytest.fixture
def source(directory: Path) -> Path:
    """A file with the data."""
    path = directory / "source"
    path.write_bytes(DATA)
    return path


def test_file_is_stored_wherever_it_lies(client: Client, case: Case, source: Path) -> None:
    """It can be read at once, and a second time it is there."""
    first = client.blobs.ingest(
        source, digest=DIGEST, size=len(DATA), media_type="text/x", labels={"a": "b"}
    )
    second = client.blobs.ingest(source)

    assert (first.digest, first.size, first.created) == (DIGEST, len(DATA), True)
    assert (second.digest, second.way, second.created) == (DIGEST, Way.EXISTED, False)
    record = client.blobs.get(DIGEST)
    assert record == case.blobs.get(DIGEST)
    assert (record.labels["a"], record.labels[MEDIA_TYPE]) == ("b", "text/x")
    assert b"".join(client.blobs.read(DIGEST)) == DATA
    assert_nothing_left(case.backing)


def test_moved_file_is_gone_when_its_blob_is_stored(client: Client, source: Path) -> None:
    """Taken over where the service reaches it, removed where it was sent."""
    client.blobs.ingest(source, move=True)
    assert not source.exists()

    source.write_bytes(DATA)
    client.blobs.ingest(source, digest=DIGEST, move=True)
    assert not source.exists()
    assert client.blobs.exists(DIGEST)


def test_moved_file_of_other_content_stays(
    client: Client, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A blob that is there says nothing about the file that was to be it."""
    client.blobs.ingest(source)
    source.write_bytes(b"something else")

    with caplog.at_level(logging.WARNING):
        client.blobs.ingest(source, digest=DIGEST, move=True)

    assert source.read_bytes() == b"something else"
    assert "moved file stays" in caplog.text


def test_missing_file_of_a_stored_blob_is_success(client: Client, case: Case, source: Path) -> None:
    """What is known of it is completed, as a file would do."""
    client.blobs.ingest(source)
    source.unlink()

    result = client.blobs.ingest(source, digest=DIGEST, media_type="text/y", move=True)

    assert (result.digest, result.way) == (DIGEST, Way.EXISTED)
    assert case.blobs.get(DIGEST).labels[MEDIA_TYPE] == "text/y"


def test_missing_file_is_not_found(client: Client, directory: Path) -> None:
    """With the path in the message."""
    with pytest.raises(SourceNotFoundError, match="nothing"):
        client.blobs.ingest(directory / "nothing")
    with pytest.raises(SourceNotFoundError, match="nothing"):
        client.blobs.ingest(directory / "nothing", digest=ABSENT)


def test_file_of_another_digest_or_size_is_refused(
    client: Client, case: Case, source: Path
) -> None:
    """Expected and actual are in the details, and nothing is left."""
    with pytest.raises(DigestMismatchError) as caught:
        client.blobs.ingest(source, digest=ABSENT)
    assert caught.value.details["expected"] == str(ABSENT)
    assert caught.value.details["actual"] == str(DIGEST)
    assert str(source) in caught.value.message
    with pytest.raises(SizeMismatchError):
        client.blobs.ingest(source, size=1)

    assert not client.blobs.exists(DIGEST)
    assert_nothing_left(case.backing)


def test_directory_is_no_blob(client: Client, directory: Path) -> None:
    """Whoever looks at it, service or client."""
    with pytest.raises(UsageError, match="directory"):
        client.blobs.ingest(directory / ".")


def test_file_behind_a_link_is_sent(client: Client, allowed: Path, tmp_path: Path) -> None:
    """The service follows no links; the client may."""
    (tmp_path / "target").write_bytes(DATA)
    (allowed / "link").symlink_to(tmp_path / "target")

    assert client.blobs.ingest(allowed / "link").digest == DIGEST


def test_name_that_is_no_text_is_sent(client: Client, allowed: Path) -> None:
    """No message can carry it."""
    path = Path(os.fsdecode(os.fsencode(allowed) + b"/\xff"))
    path.write_bytes(DATA)

    assert client.blobs.ingest(path).digest == DIGEST


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_stream_of_any_size_is_stored(size: int, client: Client) -> None:
    """Chunk borders and emptiness included."""
    data = DATA[:size]

    result = client.blobs.ingest_stream(io.BytesIO(data), media_type="text/x")

    assert (result.digest, result.size) == (Digest.of(data), size)
    assert b"".join(client.blobs.read(result.digest)) == data


def test_stream_whose_reader_fails_stores_nothing(client: Client, case: Case) -> None:
    """The caller sees its own error, and half of the bytes are no blob."""

    class _Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.count = 0

        def read(self, size: int = -1, /) -> bytes:
            self.count += 1
            if self.count > 5:
                raise UsageError("enough")
            return DATA[:1000]

    with pytest.raises(UsageError, match="enough"):
        client.blobs.ingest_stream(_Broken())

    assert not client.blobs.exists(Digest.of(5 * DATA[:1000]))
    assert_nothing_left(case.backing)


def test_cancelled_stream_stores_nothing(client: Client, case: Case) -> None:
    """Whoever sets the flag finds the store as it was when the call returns."""
    cancel = Cancellation()

    class _Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.count = 0

        def read(self, size: int = -1, /) -> bytes:
            self.count += 1
            if self.count == 20:
                cancel.set()
            return DATA[:100_000]

    with pytest.raises(InterruptedOperationError):
        client.blobs.ingest_stream(_Endless(), cancel=cancel)

    assert_nothing_left(case.backing)


def test_many_files_give_results_in_order(client: Client, directory: Path) -> None:
    """Line n belongs to file n, in memory for some of them."""
    contents = [bytes([number % 256]) * (1 + number * 100) for number in range(150)]
    for number, content in enumerate(contents):
        (directory / str(number)).write_bytes(content)

    results = client.blobs.ingest_many(directory / str(number) for number in range(150))

    assert [result.digest for result in results] == list(map(Digest.of, contents))


def test_many_files_of_which_one_is_missing_end_there(
    client: Client, case: Case, directory: Path
) -> None:
    """What was yielded before is stored, nothing is under way after."""
    for number in range(10):
        (directory / str(number)).write_bytes(bytes([number]) * 5000)
    (directory / "6").unlink()
    yielded: list[Digest] = []

    results = client.blobs.ingest_many(directory / str(number) for number in range(10))

    with pytest.raises(SourceNotFoundError):
        yielded.extend(result.digest for result in results)

    assert yielded == [Digest.of(bytes([number]) * 5000) for number in range(6)]
    assert list(client.blobs.missing(yielded)) == []
    assert_nothing_left(case.backing)


@pytest.fixture
def stored(client: Client, tmp_path: Path) -> Digest:
    """A blob in the store."""
    (tmp_path / "stored").write_bytes(DATA)
    return client.blobs.ingest(tmp_path / "stored", media_type="text/x").digest


def test_lists_say_what_the_library_says(client: Client, case: Case, stored: Digest) -> None:
    """With and without filters."""
    now = datetime.now(UTC)
    filters = parse_blob_filters(["media-type=text/*", "size>=1MB"], now=now)
    none = parse_blob_filters(["media-type=none"], now=now)

    assert sorted(client.blobs.iter_blobs(), key=str) == sorted(case.blobs.iter_blobs(), key=str)
    assert [blob.digest for blob in client.blobs.iter_blobs(filters)] == [stored]
    assert list(client.blobs.iter_blobs(none)) == []
    assert list(client.blobs.iter_media_types()) == list(case.blobs.iter_media_types())


def test_list_that_is_not_read_to_its_end_is_ended(client: Client, stored: Digest) -> None:
    """And the connection is as good as before."""
    blobs = client.blobs.iter_blobs()
    next(blobs)
    assert isinstance(blobs, Iterator)
    blobs.close()  # type: ignore[attr-defined]

    assert client.blobs.exists(stored)


def test_missing_blobs_of_many_come_in_order(client: Client, stored: Digest) -> None:
    """More than one message can carry."""
    wanted = [Digest.of(str(number).encode()) for number in range(20_000)]
    wanted.insert(17_000, stored)

    missing = list(client.blobs.missing(wanted))

    assert missing == [digest for digest in wanted if digest != stored]


def test_ranges_and_verification(client: Client, case: Case, stored: Digest) -> None:
    """A part is what it is, and a changed byte is found by reading all of it."""
    assert b"".join(client.blobs.read(stored, offset=10, size=5)) == DATA[10:15]
    assert b"".join(client.blobs.read(stored, offset=len(DATA) - 3)) == DATA[-3:]
    with pytest.raises(UsageError):
        list(client.blobs.read(stored, offset=len(DATA) + 1))
    assert client.blobs.verify(stored).digest == stored
    path = blob_file(case.backing, stored)
    changed = bytearray(DATA)
    changed[7] ^= 1
    path.write_bytes(changed)

    with pytest.raises(CorruptBlobError):
        client.blobs.verify(stored)
    with pytest.raises(CorruptBlobError):
        list(client.blobs.read(stored))


def test_labels_and_pins_are_changed(client: Client, stored: Digest) -> None:
    """Set, removed, left alone, refused."""
    client.blobs.update_labels(stored, {"a": "1", "b": "2"})
    changed = client.blobs.update_labels(stored, {"a": None, "c": "3"})
    assert {key: changed.labels.get(key) for key in "abc"} == {"a": None, "b": "2", "c": "3"}
    with pytest.raises(InvalidNameError):
        client.blobs.update_labels(stored, {GC_ROOT: None})

    assert client.blobs.pin(stored, owner="me", reason="test").labels[PIN_OWNER] == "me"
    assert GC_ROOT not in client.blobs.unpin(stored).labels


def test_blob_that_is_not_there_is_not_found(client: Client) -> None:
    """Whatever is asked of it."""
    assert not client.blobs.exists(ABSENT)
    for ask in (client.blobs.get, client.blobs.verify, client.blobs.children, client.blobs.unpin):
        with pytest.raises(BlobNotFoundError) as caught:
            ask(ABSENT)
        assert caught.value.details
    with pytest.raises(BlobNotFoundError):
        list(client.blobs.read(ABSENT))
    assert client.blobs.remove(ABSENT) is False


def test_blob_in_use_stays_and_the_others_go(
    client: Client, stored: Digest, tmp_path: Path
) -> None:
    """Each with its own outcome, as the library tells it."""
    image = layered_image(1)
    client.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
    layer = Digest.parse(image.layers[0].digest)

    outcomes = dict(client.blobs.remove_many([stored, layer, ABSENT]))

    assert (outcomes[stored], outcomes[ABSENT]) == (True, False)
    error = outcomes[layer]
    assert isinstance(error, InUseError)
    assert image.digest in error.message
    with pytest.raises(InUseError):
        client.blobs.remove(layer)
    assert client.blobs.remove(layer, force=True)


def test_children_of_a_manifest_are_listed(client: Client, tmp_path: Path) -> None:
    """Config first, then layers."""
    image = layered_image(2)
    client.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))

    children = client.blobs.children(Digest.parse(image.digest))

    assert [str(child.digest) for child in children] == [
        image.config_digest,
        *(layer.digest for layer in image.layers),
    ]
