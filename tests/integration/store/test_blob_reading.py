"""What can be asked of a stored blob: its bytes, whole or in part, and what they refer to."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    InterruptedOperationError,
    InvalidNameError,
    MalformedDocumentError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import DOWNLOADED, GC_ROOT, KEEP, MEDIA_TYPE
from cas.model.limits import CHUNK_BYTES
from cas.model.media_types import OCI_INDEX, OCI_MANIFEST
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.blobs import Blobs
from tests.support.images import build_index, layered_image
from tests.support.stores import backing_for, blob_file, random_bytes
from tests.support.volumes import Recorder

pytestmark = pytest.mark.once  # containerd gives bytes and labels

DATA = random_bytes(2 * CHUNK_BYTES + 4321)
ABSENT = Digest.of(b"never stored")


@pytest.fixture(params=["files", "containerd"])
def backing(request: pytest.FixtureRequest, containerd: Containerd, settings: Settings) -> Backing:
    """The store with its files in reach, and without."""
    changes: dict[str, Any] = {"blobs_directory": None} if request.param == "containerd" else {}
    return backing_for(containerd, settings, **changes)


@pytest.fixture
def blobs(backing: Backing) -> Blobs:
    return Blobs(backing)


@pytest.fixture
def store(blobs: Blobs, tmp_path: Path) -> Callable[..., Digest]:
    """Stores bytes and gives their digest."""

    def put(data: bytes, **options: object) -> Digest:
        path = tmp_path / uuid.uuid4().hex
        path.write_bytes(data)
        return blobs.ingest(path, **options).digest  # type: ignore[arg-type]

    return put


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 0),
        (0, 10),
        (5, 0),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 2),
        (len(DATA) - 1, 100),
        (len(DATA), 0),
        (0, len(DATA)),
    ],
)
def test_range_of_a_blob_is_read_exactly(
    blobs: Blobs, store: Callable[..., Digest], offset: int, size: int
) -> None:
    """Whatever the range, just its bytes come, in chunks of at most 1 MiB."""
    digest = store(DATA)

    chunks = list(blobs.read(digest, offset=offset, size=size))

    assert b"".join(chunks) == DATA[offset : offset + size if size else None]
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize(("offset", "size"), [(4, 1), (-1, 1), (0, -1)])
def test_range_outside_of_a_blob_is_a_usage_error(
    blobs: Blobs, store: Callable[..., Digest], offset: int, size: int
) -> None:
    """Nobody takes the end of a blob for nothing to read."""
    digest = store(b"abc")

    with pytest.raises(UsageError):
        list(blobs.read(digest, offset=offset, size=size))


def test_verification_of_a_good_blob_gives_its_record(
    blobs: Blobs, store: Callable[..., Digest]
) -> None:
    """Every byte is read, and told of."""
    digest, watcher = store(DATA), Recorder()

    info = blobs.verify(digest, progress=watcher)

    assert (info.digest, info.size) == (digest, len(DATA))
    assert watcher.advanced == len(DATA)
    assert watcher.started == watcher.finished == [str(digest)]


def test_verification_of_a_damaged_blob_fails(
    containerd: Containerd, settings: Settings, blobs: Blobs, store: Callable[..., Digest]
) -> None:
    """A byte that changed on disk is found."""
    digest = store(DATA)
    path = blob_file(backing_for(containerd, settings), digest)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(bytes([DATA[0] ^ 1]))

    with pytest.raises(CorruptBlobError):
        blobs.verify(digest)


def test_verification_that_is_stopped_ends(blobs: Blobs, store: Callable[..., Digest]) -> None:
    """It looks at its flag between two chunks."""
    digest, stop = store(DATA), Cancellation()
    stop.set()

    with pytest.raises(InterruptedOperationError):
        blobs.verify(digest, cancel=stop)


@pytest.mark.parametrize("typed", [True, False])
def test_children_of_documents_are_what_their_bytes_name(
    blobs: Blobs, store: Callable[..., Digest], typed: bool
) -> None:
    """Index to manifests, manifest to config and layers; with and without a known media type."""
    image = layered_image(2, name="example.com/a:1", seed=uuid.uuid4().hex)
    index = build_index([image])
    types = {"media_type": OCI_MANIFEST} if typed else {}
    manifest = store(image.manifest, **types)
    root = store(index.manifest, **({"media_type": OCI_INDEX} if typed else {}))
    named = json.loads(image.manifest)

    assert [str(child.digest) for child in blobs.children(root)] == [image.digest]
    assert [str(child.digest) for child in blobs.children(manifest)] == [
        named["config"]["digest"],
        *(layer["digest"] for layer in named["layers"]),
    ]


@pytest.mark.parametrize("data", [b"", b"no document", b"{broken", b"[1]", b'{"a": 1}', DATA])
def test_blob_that_is_no_document_has_no_children(
    blobs: Blobs, store: Callable[..., Digest], data: bytes
) -> None:
    """Layers, configs and anything else refer to nothing."""
    assert blobs.children(store(data)) == []


def test_document_that_is_not_what_it_is_stored_as_is_an_error(
    blobs: Blobs, store: Callable[..., Digest]
) -> None:
    """A manifest without content is not the same as one without children."""
    with pytest.raises(MalformedDocumentError):
        blobs.children(store(b"{}", media_type=OCI_MANIFEST))


def test_what_is_asked_of_an_absent_blob_is_not_found(blobs: Blobs) -> None:
    """Never an empty answer."""
    for ask in (blobs.children, blobs.verify, blobs.read):
        with pytest.raises(BlobNotFoundError):
            ask(ABSENT)
    with pytest.raises(BlobNotFoundError):
        blobs.update_labels(ABSENT, {"a": "b"})


def test_media_types_of_all_blobs_are_listed(blobs: Blobs, store: Callable[..., Digest]) -> None:
    """Those that somebody said."""
    typed, untyped = store(b"1", media_type="application/x-test"), store(b"2")

    listed = dict(blobs.iter_media_types())

    assert listed[typed] == "application/x-test"
    assert untyped not in listed


def test_labels_are_set_removed_and_left(blobs: Blobs, store: Callable[..., Digest]) -> None:
    """Field by field; a repetition changes nothing."""
    digest = store(b"labelled", labels={"a": "1", "b": "2"})

    for _ in range(2):
        labels = blobs.update_labels(digest, {"a": None, "c": "3", DOWNLOADED: "true"}).labels
        assert {key: labels.get(key) for key in ("a", "b", "c", DOWNLOADED)} == {
            "a": None,
            "b": "2",
            "c": "3",
            DOWNLOADED: "true",
        }
    assert GC_ROOT in blobs.get(digest).labels


@pytest.mark.parametrize(
    "changes",
    [
        {GC_ROOT: None},
        {"containerd.io/gc.ref.content.0": "sha256:" + "0" * 64},
        {MEDIA_TYPE: "other"},
        {KEEP: "yes"},
        {"": "x"},
        {"a\n": "x"},
        {"a": ""},
        {"a": "x" * 5000},
    ],
)
def test_labels_that_others_rely_on_cannot_be_changed(
    blobs: Blobs, store: Callable[..., Digest], changes: dict[str, str | None]
) -> None:
    """What is collected, and what is known of a blob, is not for callers to say."""
    digest = store(b"guarded", media_type="application/x-test")
    before = blobs.get(digest).labels

    with pytest.raises(InvalidNameError):
        blobs.update_labels(digest, changes)

    assert blobs.get(digest).labels == before
