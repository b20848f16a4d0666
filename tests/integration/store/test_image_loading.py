"""Images whose blobs come as files, on a real containerd."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import (
    ContentMissingError,
    DeniedError,
    DigestMismatchError,
    InterruptedOperationError,
    InvalidNameError,
    SourceNotFoundError,
)
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.store.content.blobs import Blobs
from cas.store.image.images import BlobToLoad
from tests.support.images import BuiltImage, layered_image
from tests.support.stores import assert_nothing_left, is_stored
from tests.support.volumes import Recorder, Store

Files = Callable[..., list[BlobToLoad]]


@pytest.fixture
def image() -> BuiltImage:
    name = uuid.uuid4().hex
    return layered_image(3, name=f"example.com/test/{name}:1", seed=name)


@pytest.fixture
def files(image: BuiltImage, tmp_path: Path) -> Files:
    """Writes the image's blobs as files, as a verifier leaves them."""

    def write(*, move: bool = False) -> list[BlobToLoad]:
        blobs = []
        for digest, data in image.blobs.items():
            path = tmp_path / digest.removeprefix("sha256:")
            path.write_bytes(data)
            blobs.append(BlobToLoad(Digest.parse(digest), path, size=len(data), move=move))
        return blobs

    return write


def _target(image: BuiltImage, *, size: bool = True) -> Descriptor:
    amount = int(image.root["size"]) if size else 0
    return Descriptor(str(image.root["mediaType"]), Digest.parse(image.digest), amount)


def _stored(store: Store, image: BuiltImage) -> list[bool]:
    return [is_stored(store.backing, Digest.parse(digest)) for digest in image.blobs]


@pytest.mark.parametrize("size", [True, False])
def test_loaded_image_lives_through_a_collection(
    store: Store, image: BuiltImage, files: Files, size: bool
) -> None:
    """Its blobs are kept by its name alone, and it can be resolved."""
    record = store.images.load(image.name, _target(image, size=size), files())

    store.backing.leases.collect_garbage()
    assert record.target == _target(image)
    assert all(_stored(store, image))
    assert len(store.images.resolve(image.name).layers) == 3
    assert not any(GC_ROOT in Blobs(store.backing).get(b.digest).labels for b in files())
    assert_nothing_left(store.backing)


def test_load_repeated_gives_the_same_and_moves_an_existing_name(
    store: Store, image: BuiltImage, files: Files
) -> None:
    """Once is as good as twice; a name that pointed elsewhere points here afterwards."""
    other = layered_image(1, name=image.name, seed="other")
    contents = [BlobToLoad(Digest.parse(d), data) for d, data in other.blobs.items()]
    store.images.load(image.name, _target(other), contents)

    first = store.images.load(image.name, _target(image), files())
    again = store.images.load(image.name, _target(image), files())

    assert first.target == again.target == _target(image)
    assert [record.name for record in store.images.iter_images()] == [image.name]


def test_load_of_blobs_that_are_there_needs_no_files(
    store: Store, image: BuiltImage, files: Files
) -> None:
    """EVE #6075: two trees share a blob, and the first load removed the verified file."""
    store.images.load(image.name, _target(image), files(move=True))
    gone = files()
    for blob in gone:
        Path(str(blob.source)).unlink()

    store.images.load("example.com/other:1", _target(image), gone)
    store.images.load("example.com/third:1", _target(image), [])

    assert store.images.exists("example.com/third:1")


def test_moved_files_go_when_the_image_is_there(
    store: Store, image: BuiltImage, files: Files, tmp_path: Path
) -> None:
    """The name keeps the blobs; no pin is left behind."""
    store.images.load(image.name, _target(image), files(move=True))

    assert list(tmp_path.iterdir()) == []
    assert not any(
        GC_ROOT in Blobs(store.backing).get(Digest.parse(digest)).labels for digest in image.blobs
    )


def test_failed_load_keeps_what_was_moved_for_the_next_attempt(
    store: Store, image: BuiltImage, files: Files, tmp_path: Path
) -> None:
    """A file that is gone from the caller's directory is never lost to a collection."""
    missing = image.layers[0].digest
    moved = [blob for blob in files(move=True) if str(blob.digest) != missing]
    with pytest.raises(ContentMissingError):
        store.images.load(image.name, _target(image), moved)

    store.backing.leases.collect_garbage()
    assert not store.images.exists(image.name)
    assert [path.name for path in tmp_path.iterdir()] == [missing.removeprefix("sha256:")]
    assert all(is_stored(store.backing, blob.digest) for blob in moved)

    store.images.load(
        image.name,
        _target(image),
        [*moved, BlobToLoad(Digest.parse(missing), image.blobs[missing])],
    )
    store.images.remove(image.name)
    store.backing.leases.collect_garbage()
    assert not any(_stored(store, image))


def test_load_with_a_wrong_or_missing_blob_changes_no_name(
    store: Store, image: BuiltImage, files: Files, tmp_path: Path
) -> None:
    """Each failure has its error, and nothing is left but what a collection takes."""
    blobs = files()
    first = blobs[0]
    wrong = BlobToLoad(first.digest, b"something else")
    absent = BlobToLoad(first.digest, tmp_path / "nothing")
    untold = BlobToLoad(first.digest, None)
    for broken, error in (
        (wrong, DigestMismatchError),
        (absent, SourceNotFoundError),
        (untold, ContentMissingError),
    ):
        with pytest.raises(error):
            store.images.load(image.name, _target(image), [broken, *blobs[1:]])
    with pytest.raises(ContentMissingError):
        store.images.load(image.name, _target(image, size=False), [])
    with pytest.raises(InvalidNameError):
        store.images.load("", _target(image), blobs)

    assert not store.images.exists(image.name)
    store.backing.leases.collect_garbage()
    assert not any(_stored(store, image))
    assert_nothing_left(store.backing)


def test_stopped_load_leaves_nothing(store: Store, image: BuiltImage, files: Files) -> None:
    """Whenever it is stopped, the name does not appear."""
    stop = Cancellation()
    watcher = Recorder(on_start=lambda _item: stop.set())

    with pytest.raises(InterruptedOperationError):
        store.images.load(image.name, _target(image), files(), cancel=stop, progress=watcher)

    assert not store.images.exists(image.name)
    store.backing.leases.collect_garbage()
    assert not any(_stored(store, image))
    assert_nothing_left(store.backing)


def test_file_outside_the_directory_is_refused(
    store: Store, image: BuiltImage, files: Files, tmp_path: Path
) -> None:
    """A blob that says where its file must lie is read from nowhere else."""
    inside = tmp_path / "inside"
    inside.mkdir()
    [blob, *_] = files()
    (inside / "link").symlink_to(Path(str(blob.source)))

    for path in (Path(str(blob.source)), inside / "link"):
        with pytest.raises(DeniedError):
            store.images.load(
                image.name, _target(image), [BlobToLoad(blob.digest, path, beneath=inside)]
            )
