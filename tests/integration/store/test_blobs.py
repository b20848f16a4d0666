"""Blobs on their own, on a real containerd."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    DigestMismatchError,
    InterruptedOperationError,
    InUseError,
    SourceNotFoundError,
)
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_REF_CONTENT, GC_ROOT, MEDIA_TYPE, PIN_OWNER, PIN_REASON
from cas.model.limits import CHUNK_BYTES
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.content.blobs import Blobs
from cas.store.content.ingest import Way
from cas.store.filters import parse_blob_filters
from cas.store.leasing import Leasing
from tests.support.daemon import WAIT_SECONDS
from tests.support.stores import (
    assert_nothing_left,
    backing_for,
    blob_file,
    is_stored,
    labels_of,
    own_blobs,
    random_bytes,
    utc_now,
)

LARGE = 2 * CHUNK_BYTES + 4321


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def blobs(backing: Backing) -> Blobs:
    return Blobs(backing)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Makes files of random bytes with new names."""

    def make(size: int = 100) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        path.write_bytes(random_bytes(size))
        return path

    return make


def digest_of(path: Path) -> Digest:
    return Digest.of(path.read_bytes())


@pytest.mark.parametrize("size", [100, LARGE])
def test_blob_ingested_is_pinned_and_survives_collection(
    backing: Backing, blobs: Blobs, make: Callable[..., Path], size: int
) -> None:
    """A blob on its own stays until somebody removes it, and says who pinned it and why."""
    path = make(size)
    result = blobs.ingest(path, media_type="a/b", labels={"example.org/x": "y"})
    assert (result.digest, result.size, result.created) == (digest_of(path), size, True)
    backing.leases.collect_garbage()
    labels = blobs.get(result.digest).labels
    assert labels[GC_ROOT]
    assert labels[PIN_OWNER] == "cas"
    assert labels[PIN_REASON]
    assert (labels[MEDIA_TYPE], labels["example.org/x"]) == ("a/b", "y")
    assert b"".join(blobs.read(result.digest)) == path.read_bytes()
    assert_nothing_left(backing)


@pytest.mark.parametrize("size", [100, LARGE])
def test_blob_of_an_image_that_is_ingested_gains_a_pin(
    backing: Backing, blobs: Blobs, make: Callable[..., Path], size: int
) -> None:
    """A blob that lived through something else lives on its own from then on."""
    path = make(size)
    data = path.read_bytes()
    with Leasing(backing).hold("image") as lease:
        backing.content.put("r", lease.id, data, Digest.of(data), {})
        assert blobs.ingest(path).way is Way.EXISTED
    backing.leases.collect_garbage()
    assert b"".join(blobs.read(Digest.of(data))) == data


def test_blob_ingested_again_keeps_its_pin(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """Invariant 10: repeating changes nothing, labels included."""
    path = make()
    before = labels_of(backing, blobs.ingest(path).digest)
    again = blobs.ingest(path, digest=digest_of(path))
    assert (again.way, again.created) == (Way.EXISTED, False)
    assert labels_of(backing, again.digest) == before


def test_blob_is_durable_when_it_is_acknowledged(
    blobs: Blobs, make: Callable[..., Path], backing: Backing
) -> None:
    """The blobs directory is synced after the last change of names and before the return."""
    seen: list[tuple[Effect, str]] = []
    directory = str(backing.blobs_directory)
    blobs.ingest(make())
    for path in (make(), make(LARGE)):
        seen.clear()
        with observed(lambda effect, where: seen.append((effect, where))):
            blobs.ingest(path)
        assert (Effect.FSYNC, directory) in seen
        assert not [
            where
            for effect, where in seen[seen.index((Effect.FSYNC, directory)) :]
            if effect in (Effect.LINK, Effect.RENAME) and where.startswith(directory)
        ]


def test_stream_is_stored(backing: Backing, blobs: Blobs) -> None:
    """Standard input becomes a pinned blob; a wrong digest is refused."""
    data = random_bytes(LARGE)
    assert blobs.ingest_stream(io.BytesIO(data)).digest == Digest.of(data)
    with pytest.raises(DigestMismatchError, match="standard input"):
        blobs.ingest_stream(io.BytesIO(data + b"x"), digest=Digest.of(data + b"y"))
    assert own_blobs(backing) == {Digest.of(data)}
    assert_nothing_left(backing)


@pytest.mark.parametrize("workers", [1, 4])
def test_many_files_are_stored_in_order(
    backing: Backing, make: Callable[..., Path], workers: int
) -> None:
    """One result per file, in order, large and small, the same content twice included."""
    paths = [make(LARGE if number % 20 == 0 else 50) for number in range(100)]
    paths += paths[:3]
    results = list(Blobs(backing, workers=workers).ingest_many(paths, media_type="a/b"))
    assert [result.digest for result in results] == [digest_of(path) for path in paths]
    assert sum(result.created for result in results) == 100
    assert all(labels_of(backing, digest)[GC_ROOT] for digest in own_blobs(backing))
    assert_nothing_left(backing)


def test_many_files_of_which_one_is_missing_yield_those_before(
    backing: Backing, blobs: Blobs, make: Callable[..., Path], tmp_path: Path
) -> None:
    """What was yielded is stored; the failure comes in its place, and nothing is left."""
    before, after = [make() for _ in range(5)], [make() for _ in range(5)]
    results = blobs.ingest_many([*before, tmp_path / "missing", *after])
    for path in before:
        assert next(results).digest == digest_of(path)
    with pytest.raises(SourceNotFoundError):
        next(results)
    assert own_blobs(backing) >= {digest_of(path) for path in before}
    assert_nothing_left(backing)


def test_many_files_are_taken_from_an_endless_list_bit_by_bit(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """The list of paths is not read to its end before work begins; closing stops the work."""
    taken: list[Path] = []

    def endless() -> Iterator[Path]:
        path = make()
        while True:
            taken.append(path)
            yield path

    results = blobs.ingest_many(endless())
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 200
    assert_nothing_left(backing)


def test_many_files_cancelled_leave_nothing_half_done(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """A stop ends all workers; what was not yielded is whole or absent."""
    cancel = Cancellation()
    paths = [make(LARGE) for _ in range(8)]
    results = blobs.ingest_many(paths, cancel=cancel)
    first = next(results)
    cancel.set()
    with pytest.raises(InterruptedOperationError):
        list(blobs.ingest_many(paths[1:], cancel=cancel))
    results.close()  # type: ignore[attr-defined]
    assert is_stored(backing, first.digest)
    for digest in own_blobs(backing):
        assert Digest.of(blob_file(backing, digest).read_bytes()) == digest
    assert_nothing_left(backing)


def test_many_files_are_moved(backing: Backing, blobs: Blobs, make: Callable[..., Path]) -> None:
    """Moving works for a batch; the sources are gone."""
    paths = [make(), make(LARGE)]
    digests = [digest_of(path) for path in paths]
    assert [result.digest for result in blobs.ingest_many(paths, move=True)] == digests
    assert not any(path.exists() for path in paths)


def test_list_shows_what_matches(blobs: Blobs, make: Callable[..., Path]) -> None:
    """Filters choose among all blobs of the namespace."""
    large, small = blobs.ingest(make(LARGE)), blobs.ingest(make(), media_type="a/b")
    everything = {blob.digest for blob in blobs.iter_blobs()}
    assert everything >= {large.digest, small.digest}
    filters = parse_blob_filters(["size>=1MiB"], now=utc_now())
    assert {blob.digest for blob in blobs.iter_blobs(filters)} == {large.digest}
    filters = parse_blob_filters(["media-type=a/*"], now=utc_now())
    assert {blob.digest for blob in blobs.iter_blobs(filters)} == {small.digest}


@pytest.mark.parametrize("reachable", [True, False])
def test_blob_absent_is_told_by_every_question(backing: Backing, reachable: bool) -> None:
    """Asking for what is not there is not found, or false, never empty bytes."""
    blobs = Blobs(backing if reachable else replace(backing, blobs_directory=None))
    digest = Digest.of(b"absent")
    assert not blobs.exists(digest)
    for question in (blobs.get, lambda digest: list(blobs.read(digest))):
        with pytest.raises(BlobNotFoundError):
            question(digest)
    assert blobs.remove(digest) is False


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("size", [0, 100, LARGE])
def test_blob_is_read_back(
    backing: Backing, make: Callable[..., Path], reachable: bool, size: int
) -> None:
    """Bytes come from the file where it is within reach, from containerd where not."""
    path = make(size)
    digest = Blobs(backing).ingest(path).digest
    blobs = Blobs(backing if reachable else replace(backing, blobs_directory=None))
    chunks = list(blobs.read(digest))
    assert b"".join(chunks) == path.read_bytes()
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_blob_corrupt_is_told_when_it_is_read(
    backing: Backing, make: Callable[..., Path], reachable: bool, damage: str
) -> None:
    """Whoever reads a blob to its end has its bytes, or an error."""
    digest = Blobs(backing).ingest(make(LARGE)).digest
    blobs = Blobs(backing if reachable else replace(backing, blobs_directory=None))
    file = blob_file(backing, digest)
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        data = bytearray(file.read_bytes())
        data[CHUNK_BYTES] ^= 1
        file.write_bytes(data)
    with pytest.raises(CorruptBlobError, match="cas check"):
        list(blobs.read(digest))


def test_blob_whose_file_is_lost_does_not_exist(
    blobs: Blobs, make: Callable[..., Path], backing: Backing
) -> None:
    """A record without a file is no blob: whoever asks brings it again."""
    digest = blobs.ingest(make()).digest
    blob_file(backing, digest).unlink()
    assert not blobs.exists(digest)
    assert list(blobs.missing([digest])) == [digest]


@pytest.mark.parametrize("count", [3, 100])
def test_missing_gives_the_absent_ones_in_order(
    blobs: Blobs, make: Callable[..., Path], count: int
) -> None:
    """Few digests are asked for one by one, many in one pass, with the same answer."""
    held = [result.digest for result in blobs.ingest_many([make(), make()])]
    absent = [Digest.of(str(number).encode()) for number in range(count)]
    asked = [absent[0], held[0], *absent[1:], held[1]]
    assert list(blobs.missing(iter(asked))) == absent


def test_remove_takes_a_pinned_blob_and_its_file(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """A blob that nothing refers to goes, pin or not; the second removal finds nothing."""
    digest = blobs.ingest(make()).digest
    assert blobs.remove(digest) is True
    assert not blobs.exists(digest)
    assert blobs.remove(digest) is False
    backing.leases.collect_garbage()
    assert not blob_file(backing, digest).exists()


@pytest.mark.parametrize(
    "referrer", ["image", "image label", "blob", "volume", "snapshot", "lease"]
)
def test_remove_refuses_what_something_refers_to(
    backing: Backing, make: Callable[..., Path], referrer: str
) -> None:
    """The refusal names who needs the blob; force removes it all the same."""
    result = Blobs(backing).ingest(make())
    digest = result.digest
    target = Descriptor("a/b", digest, result.size)
    reference = {f"{GC_REF_CONTENT}.0": str(digest)}
    other = Blobs(backing).ingest(make())
    volumes: list[VolumeRecord] = []
    with Leasing(backing).hold("test") as lease:
        if referrer == "image":
            backing.images.create("example.org/name:1", target, {})
        elif referrer == "image label":
            elsewhere = Descriptor("a/b", other.digest, other.size)
            backing.images.create("example.org/name:1", elsewhere, reference)
        elif referrer == "blob":
            backing.content.update_labels(other.digest, {**reference})
        elif referrer == "snapshot":
            backing.snapshots.prepare("key", "", lease.id, {**reference, GC_ROOT: "test"})
        elif referrer == "volume":
            volumes.append(volume_of(digest))
        elif referrer == "lease":
            lease.pin_blob(digest)
        blobs = Blobs(replace(backing, volumes=lambda: iter(volumes)))
        with pytest.raises(InUseError) as caught:
            blobs.remove(digest)
        assert referrer.split(maxsplit=1)[0] in str(caught.value)
        assert blobs.exists(digest)
        assert blobs.remove(digest, force=True) is True
        assert not blobs.exists(digest)


def volume_of(digest: Digest) -> VolumeRecord:
    name = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0")
    return VolumeRecord(
        name=name,
        image="example.org/name:1",
        root_digest=digest,
        manifest_digest=Digest.of(b"manifest"),
        chain_id=None,
        snapshot_key=str(name),
        snapshotter="overlayfs",
        read_only=False,
        created=utc_now(),
    )


def test_remove_many_tells_each_outcome(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """One in use does not keep the others."""
    free, used = blobs.ingest(make()), blobs.ingest(make())
    absent = Digest.of(b"absent")
    backing.images.create("x", Descriptor("a/b", used.digest, used.size), {})
    outcomes = dict(blobs.remove_many([free.digest, used.digest, absent]))
    assert outcomes[free.digest] is True
    assert isinstance(outcomes[used.digest], InUseError)
    assert outcomes[absent] is False


def test_remove_waits_for_an_ingest_and_spares_what_it_brought(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """An ingest that found the blob counts on it until its lease ends, and removal sees that."""
    path = make()
    digest = blobs.ingest(path).digest
    found, go_on = threading.Event(), threading.Event()

    class Slow:
        """The content store; stops the ingest right after it found and pinned the blob."""

        def __getattr__(self, name: str) -> object:
            return getattr(backing.content, name)

        def update_labels(self, digest: Digest, labels: dict[str, str | None]) -> object:
            found.set()
            assert go_on.wait(WAIT_SECONDS)
            return backing.content.update_labels(digest, labels)

    slow = Blobs(replace(backing, content=Slow()))  # type: ignore[arg-type]
    thread = threading.Thread(target=slow.ingest, args=(path,), kwargs={"labels": {"a/b": "c"}})
    thread.start()
    try:
        assert found.wait(WAIT_SECONDS)
        with pytest.raises(InUseError, match="lease"):
            blobs.remove(digest)
    finally:
        go_on.set()
        thread.join()
    assert labels_of(backing, digest)["a/b"] == "c"


def test_pin_and_unpin_change_owner_and_life(
    backing: Backing, blobs: Blobs, make: Callable[..., Path]
) -> None:
    """A pin carries owner and reason; without it the blob goes with the next collection."""
    digest = blobs.ingest(make()).digest
    info = blobs.pin(digest, owner="volumemgr", reason="content tree 1")
    assert (info.labels[PIN_OWNER], info.labels[PIN_REASON]) == ("volumemgr", "content tree 1")
    backing.leases.collect_garbage()
    assert blobs.exists(digest)
    info = blobs.unpin(digest)
    assert not {GC_ROOT, PIN_OWNER, PIN_REASON} & set(info.labels)
    backing.leases.collect_garbage()
    assert not blobs.exists(digest)
    for change in (blobs.unpin, lambda digest: blobs.pin(digest, owner="a", reason="b")):
        with pytest.raises(BlobNotFoundError):
            change(digest)
