"""Images through the client: archives wherever they lie, and everything there is to ask."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import (
    AlreadyExistsError,
    ContentMissingError,
    DeniedError,
    DigestMismatchError,
    ImageNotFoundError,
    InUseError,
    InvalidNameError,
    MalformedArchiveError,
    SourceNotFoundError,
    UsageError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, PIN_REASON, PINNED_BY_SENDING
from cas.model.progress import Progress
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from cas.rpc.client.blobs import BlobsClient
from cas.rpc.limits import MESSAGE_BYTES
from cas.store.filters import parse_image_filters
from cas.store.image.images import BlobToLoad
from cas.store.image.sent_blobs import let_go_of_sent_blobs
from tests.support.images import (
    BuiltImage,
    build_image,
    docker_archive_documents,
    layered_image,
)
from tests.support.layers import Compression, build_layer, file
from tests.support.stores import assert_nothing_left

NAME = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0")


@pytest.fixture
def image() -> BuiltImage:
    """Not yet in the store."""
    return layered_image(3)


@pytest.fixture
def imported(client: Client, image: BuiltImage, allowed: Path) -> BuiltImage:
    """In the store."""
    client.images.import_archive(image.write_oci_tar(allowed / "image.tar"))
    return image


def _target(image: BuiltImage) -> Descriptor:
    return Descriptor(
        str(image.root["mediaType"]), Digest.parse(image.digest), int(image.root["size"])
    )


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_archive_is_imported_wherever_it_lies(
    compression: Compression, client: Client, case: Case, image: BuiltImage, directory: Path
) -> None:
    """Plain and compressed, with the digests it has."""
    archive = image.write_oci_tar(directory / "image.tar", compression=compression)

    [record] = client.images.import_archive(archive, name="example.com/other:1")

    assert (record.name, str(record.target.digest)) == ("example.com/other:1", image.digest)
    assert case.images.get(record.name) == record
    assert_nothing_left(case.backing)


def test_layout_directory_is_imported_wherever_it_lies(
    client: Client, image: BuiltImage, directory: Path
) -> None:
    """Blobs behind links included, which the service by itself does not follow."""
    layout = image.write_oci_layout(directory / "layout")
    shutil.move(layout / "blobs", directory / "blobs")
    (layout / "blobs").symlink_to(directory / "blobs")

    [record] = client.images.import_archive(layout)

    assert (record.name, str(record.target.digest)) == (image.name, image.digest)


def test_unpacked_docker_archive_is_imported(
    client: Client, image: BuiltImage, tmp_path: Path
) -> None:
    """As docker save writes it, unpacked by hand."""
    for name, data in docker_archive_documents([image]).items():
        path = tmp_path / "docker" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    [record] = client.images.import_archive(tmp_path / "docker")

    assert record.name == image.name


def test_stream_is_imported(client: Client, image: BuiltImage, tmp_path: Path) -> None:
    """Such as the standard input of the command."""
    archive = image.write_oci_tar(tmp_path / "image.tar", documents_first=False)

    [record] = client.images.import_archive(io.BytesIO(archive.read_bytes()))

    assert str(record.target.digest) == image.digest


def test_bad_archive_is_refused_by_name(client: Client, case: Case, directory: Path) -> None:
    """Truncated, empty, absent: the error is the library's, with the path in it."""
    whole = layered_image(1).write_oci_tar(directory / "image.tar").read_bytes()
    (directory / "image.tar").write_bytes(whole[:2500])
    (directory / "empty.tar").write_bytes(b"")
    (directory / "empty").mkdir()

    for name in ("image.tar", "empty.tar", "empty"):
        with pytest.raises(MalformedArchiveError) as caught:
            client.images.import_archive(directory / name)
        assert str(directory / name) in caught.value.message
    with pytest.raises(SourceNotFoundError):
        client.images.import_archive(directory / "absent.tar")
    assert list(client.images.iter_images()) == []
    assert_nothing_left(case.backing)


@pytest.mark.parametrize("archive_format", ["oci", "docker"])
def test_export_through_the_client_is_the_same_file(
    archive_format: str, client: Client, case: Case, imported: BuiltImage, tmp_path: Path
) -> None:
    """Byte for byte, and durable in one go."""
    case.images.export(imported.name, tmp_path / "direct.tar", format=archive_format)  # type: ignore[arg-type]
    client.images.export(imported.name, tmp_path / "through.tar", format=archive_format)  # type: ignore[arg-type]
    stream = io.BytesIO()
    client.images.export(imported.name, stream, format=archive_format)  # type: ignore[arg-type]

    direct = (tmp_path / "direct.tar").read_bytes()
    assert (tmp_path / "through.tar").read_bytes() == direct
    assert stream.getvalue() == direct


def test_failed_export_leaves_what_had_the_name(
    client: Client, imported: BuiltImage, tmp_path: Path
) -> None:
    """A file appears when it is whole."""
    target = tmp_path / "image.tar"
    target.write_bytes(b"precious")
    client.blobs.remove(Digest.parse(imported.layers[0].digest), force=True)

    with pytest.raises(ContentMissingError):
        client.images.export(imported.name, target)
    with pytest.raises(ImageNotFoundError):
        client.images.export("example.com/none:1", target)
    with pytest.raises(UsageError, match="directory"):
        client.images.export(imported.name, tmp_path)

    assert target.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["image.tar"]


def test_answers_are_the_librarys(client: Client, case: Case, imported: BuiltImage) -> None:
    """Records, details, filters, short names."""
    filters = parse_image_filters(["reference=example.com/*"], now=case.now())

    assert client.images.get(imported.name) == case.images.get(imported.name)
    told, known = client.images.inspect(imported.name), case.images.inspect(imported.name)
    assert told == known
    assert json.dumps(told.as_document()) == json.dumps(known.as_document())
    assert list(client.images.iter_images()) == list(case.images.iter_images())
    assert [record.name for record in client.images.iter_images(filters)] == [imported.name]
    assert client.images.platform == case.images.platform
    client.images.tag(imported.name, "docker.io/library/short:latest")
    assert client.images.get("short").name == "docker.io/library/short:latest"


def test_names_are_given_moved_and_removed(client: Client, imported: BuiltImage) -> None:
    """With the library's errors."""
    other = layered_image(1, seed="other")
    target = _target(imported)
    assert client.images.create("example.com/new:1", target).target == target
    assert client.images.create("example.com/new:1", target).target == target
    with pytest.raises(ContentMissingError):
        client.images.create("example.com/none:1", _target(other))
    with pytest.raises(InvalidNameError):
        client.images.tag(imported.name, "")
    with pytest.raises(ImageNotFoundError):
        client.images.replace("example.com/none:1", target)
    assert client.images.remove("example.com/new:1")
    assert not client.images.remove("example.com/new:1")
    assert not client.images.exists("example.com/new:1")


def test_name_that_points_elsewhere_is_taken(
    client: Client, imported: BuiltImage, allowed: Path
) -> None:
    """Creating does not move it, replacing does."""
    other = layered_image(1, seed="other").named("example.com/second:1")
    client.images.import_archive(other.write_oci_tar(allowed / "other.tar"))

    with pytest.raises(AlreadyExistsError):
        client.images.create(imported.name, _target(other))

    assert client.images.replace(imported.name, _target(other)).target == _target(other)


def test_image_of_a_volume_stays_unless_forced(client: Client, imported: BuiltImage) -> None:
    """The volume is named."""
    client.volumes.prepare(NAME, imported.name)

    with pytest.raises(InUseError) as caught:
        client.images.remove(imported.name)

    assert caught.value.details["volumes"] == str(NAME)
    assert client.images.remove(imported.name, force=True)
    assert client.volumes.remove(NAME)


class _Told:
    """Remembers what was worked on."""

    def __init__(self) -> None:
        self.items: list[str] = []

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.items.append(item)

    def advance(self, action: str, item: str, amount: int) -> None:
        """Nobody asks how far it is."""

    def finish(self, action: str, item: str) -> None:
        """Nor for the end."""

    def named(self, digest: Digest) -> bool:
        return any(digest.hex in item for item in self.items)


def test_layout_directory_sends_no_blob_that_the_store_has(
    client: Client, image: BuiltImage, tmp_path: Path
) -> None:
    """A second version of an image costs what is new in it; the whole is imported as ever."""
    layout = image.write_oci_layout(tmp_path / "layout")
    client.images.import_archive(layout)
    first, *others = (Digest.parse(layer.digest) for layer in image.layers)
    client.blobs.remove(first, force=True)
    (layout / "blobs/sha256" / others[0].hex).write_bytes(b"never read")
    told = _Told()

    [record] = client.images.import_archive(layout, progress=told)

    assert str(record.target.digest) == image.digest
    assert not client.images.inspect(image.name).problem
    assert told.named(first)
    assert not told.named(others[0])


def test_layout_directory_is_sent_whole_when_the_store_has_lost_what_it_had(
    client: Client, image: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs may be collected between the question and the import."""
    layout = image.write_oci_layout(tmp_path / "layout")
    monkeypatch.setattr(BlobsClient, "missing", lambda _self, _digests: iter(()))

    [record] = client.images.import_archive(layout)

    assert str(record.target.digest) == image.digest


def test_load_stores_blobs_and_names_the_image(
    client: Client, image: BuiltImage, allowed: Path
) -> None:
    """Files that the service takes over, and documents from memory."""
    blobs = []
    for digest, data in image.blobs.items():
        if digest in {layer.digest for layer in image.layers}:
            path = allowed / digest
            path.write_bytes(data)
            blobs.append(BlobToLoad(Digest.parse(digest), path, size=len(data), move=True))
        else:
            blobs.append(BlobToLoad(Digest.parse(digest), data))

    record = client.images.load("example.com/loaded:1", _target(image), blobs)

    assert str(record.target.digest) == image.digest
    assert list(allowed.iterdir()) == []
    again = [BlobToLoad(blob.digest, None) for blob in blobs]
    assert client.images.load("example.com/loaded:1", _target(image), again) == record


def _in_memory(image: BuiltImage) -> list[BlobToLoad]:
    return [BlobToLoad(Digest.parse(digest), data) for digest, data in image.blobs.items()]


def _large_image() -> BuiltImage:
    """One whose blobs together do not fit into a request, and one of them not even alone."""
    sizes = (MESSAGE_BYTES + 1, MESSAGE_BYTES // 2)
    return build_image([build_layer([file("data", os.urandom(size))]) for size in sizes])


def test_load_of_more_than_a_request_holds_pins_nothing(client: Client) -> None:
    """What does not fit is sent before, and is the image's like the rest of it."""
    image = _large_image()

    record = client.images.load("example.com/loaded:1", _target(image), _in_memory(image))

    assert str(record.target.digest) == image.digest
    labels = [client.blobs.get(Digest.parse(digest)).labels for digest in image.blobs]
    assert not any(GC_ROOT in each for each in labels)


def test_load_of_more_than_a_request_holds_leaves_what_others_pinned(client: Client) -> None:
    """Before, meanwhile by an ingest, or meanwhile by a pin: each stays theirs."""
    image = _large_image()
    blobs = _in_memory(image)
    before, ingested, pinned = blobs[-3:]
    assert isinstance(before.source, bytes)
    client.blobs.ingest_stream(io.BytesIO(before.source), digest=before.digest)

    class Meanwhile:
        """Others, who come when everything is sent."""

        def __iter__(self) -> Iterator[BlobToLoad]:
            for blob in blobs:
                assert isinstance(blob.source, bytes)
                client.blobs.send_for_image(blob.source, blob.digest)
            client.blobs.ingest_stream(io.BytesIO(b""), digest=ingested.digest)
            client.blobs.pin(pinned.digest, owner="me", reason="mine")
            yield from blobs

    client.images.load("example.com/loaded:1", _target(image), Meanwhile())

    found = {blob: client.blobs.get(blob.digest).labels for blob in blobs}
    kept = {blob.digest for blob, labels in found.items() if GC_ROOT in labels}
    assert kept == {before.digest, ingested.digest, pinned.digest}
    assert found[pinned][PIN_REASON] == "mine"


class _WhenSent(Progress):
    """Does something when so many blobs are on the service's side."""

    def __init__(self, count: int, act: Callable[[], object]) -> None:
        self._count = count
        self._act = act

    def start(self, *_: object) -> None:
        """Of no interest."""
        return

    def advance(self, *_: object) -> None:
        """Of no interest."""
        return

    def finish(self, *_: object) -> None:
        """One more is there."""
        self._count -= 1
        if self._count == 0:
            self._act()


def test_load_whose_blobs_another_failing_load_lets_go_sends_them_again(client: Client) -> None:
    """Two callers have a blob in common, and the one that fails cannot know of the other."""
    image = _large_image()
    blobs = _in_memory(image)
    common = blobs[0].digest

    def let_go() -> None:
        client.blobs.unpin(common, reason=PINNED_BY_SENDING)
        client.collect_garbage()
        assert not client.blobs.exists(common)

    sent = _WhenSent(len(blobs), let_go)
    record = client.images.load("example.com/loaded:1", _target(image), blobs, progress=sent)

    assert str(record.target.digest) == image.digest
    with pytest.raises(ContentMissingError):
        client.images.load(
            "example.com/loaded:2", _target(image), [*blobs, BlobToLoad(Digest.of(b"no"), None)]
        )


def test_unpin_for_a_reason_leaves_the_pins_of_others(client: Client) -> None:
    """Whoever pinned it meanwhile keeps it."""
    data = os.urandom(1000)
    digest = Digest.of(data)
    client.blobs.send_for_image(data, digest)
    client.blobs.pin(digest, owner="me", reason="mine")

    kept = client.blobs.unpin(digest, reason=PINNED_BY_SENDING)
    assert (kept.labels[PIN_REASON], GC_ROOT in kept.labels) == ("mine", True)
    assert GC_ROOT not in client.blobs.unpin(digest, reason="mine").labels


def test_blob_sent_for_an_image_that_is_not_loaded_goes_after_a_day(
    client: Client, case: Case
) -> None:
    """Whoever sent it was killed; one that comes again within the day finds it."""
    data = os.urandom(1000)
    digest = Digest.of(data)
    client.blobs.send_for_image(data, digest)
    client.recover()
    case.collect_garbage()
    assert client.blobs.exists(digest)

    let_go_of_sent_blobs(replace(case.backing, clock=lambda: case.now() + timedelta(days=2)))
    case.collect_garbage()
    assert not client.blobs.exists(digest)


def test_load_of_more_than_a_request_holds_that_fails_leaves_nothing(
    client: Client, case: Case
) -> None:
    """A blob that is another one: what was sent before it goes with the next collection."""
    image = _large_image()
    *good, last = _in_memory(image)

    with pytest.raises(DigestMismatchError):
        client.images.load(
            "example.com/loaded:1", _target(image), [*good, replace(last, source=b"other")]
        )

    case.collect_garbage()
    assert not set(image.blobs) & {str(blob.digest) for blob in client.blobs.iter_blobs()}
    assert_nothing_left(case.backing)


def test_load_of_a_file_that_the_service_may_not_read_is_denied(
    client: Client, image: BuiltImage, tmp_path: Path
) -> None:
    """It says where such files may lie."""
    layer = image.layers[0]
    (tmp_path / "layer").write_bytes(layer.blob)
    blob = BlobToLoad(Digest.parse(layer.digest), tmp_path / "layer")

    with pytest.raises(DeniedError, match="allowed"):
        client.images.load("example.com/loaded:1", _target(image), [blob])
