"""Import of image archives into a real containerd."""

import io
import json
import lzma
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    CasError,
    ContentMissingError,
    DiffIDMismatchError,
    DigestMismatchError,
    InterruptedOperationError,
    InvalidNameError,
    LayerError,
    LimitExceededError,
    MalformedArchiveError,
    MalformedDocumentError,
    SizeMismatchError,
    SourceNotFoundError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.platforms import parse_platform
from cas.model.records import ImageRecord
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.sources import Reader
from cas.store.image.images import Images
from tests.support.bad_images import corrupt, nested, resized, with_manifest
from tests.support.images import (
    BuiltImage,
    Compression,
    attestation,
    build_image,
    build_index,
    busybox_image,
    docker_archive_documents,
    encode,
    layered_image,
    write_tar,
)
from tests.support.interrupting import interrupt_wait
from tests.support.layers import BuiltLayer, build_layer, file, layer_tar
from tests.support.stores import (
    Collections,
    assert_nothing_left,
    backing_for,
    is_stored,
    labels_of,
    own_blobs,
)

pytestmark = pytest.mark.once  # archives: containerd gets blobs and names

AMD64 = parse_platform("linux/amd64")
ARM64 = parse_platform("linux/arm64")
S390X = parse_platform("linux/s390x")


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def images(backing: Backing) -> Images:
    return Images(backing, workers=3, platform=AMD64)


def amd64(name: str = "example.com/test/amd64:1") -> BuiltImage:
    return layered_image(3, name=name, platform="linux/amd64", seed="amd64")


def arm64() -> BuiltImage:
    return layered_image(3, platform="linux/arm64", seed="arm64")


def mixed(name: str = "example.com/test/mixed:1") -> BuiltImage:
    """Layers of every compression."""
    return build_image(
        [[file(f"f{number}", b"x" * 5000)] for number in range(3)],
        name=name,
        platform="linux/amd64",
        compression=list(Compression),
    )


def assert_whole(backing: Backing, image: BuiltImage) -> None:
    """Every blob is there with its bytes and its media type, and a collection takes none."""
    backing.leases.collect_garbage()
    for digest, data in image.blobs.items():
        stored = backing.content.read_all(Digest.parse(digest), limit=len(data))
        assert stored == data
        assert "cas.lfedge.org/media-type" in labels_of(backing, Digest.parse(digest))
    assert_nothing_left(backing)


def assert_nothing_came_in(backing: Backing) -> None:
    """No name, and after a collection no blob."""
    assert list(backing.images.iter_images()) == []
    assert_nothing_left(backing)
    backing.leases.collect_garbage()
    assert own_blobs(backing) == set()


def xz_tar(image: BuiltImage, path: Path) -> Path:
    image.write_oci_tar(path)
    path.write_bytes(lzma.compress(path.read_bytes(), preset=0))
    return path


def oci_stream(image: BuiltImage, path: Path) -> Reader:
    return io.BytesIO(image.write_oci_tar(path, documents_first=False).read_bytes())


OCI_SOURCES: dict[str, Callable[[BuiltImage, Path], Path | Reader]] = {
    "directory": lambda image, path: image.write_oci_layout(path / "layout"),
    "tar": lambda image, path: image.write_oci_tar(path / "a.tar"),
    "tar, index last": lambda image, path: image.write_oci_tar(
        path / "a.tar", documents_first=False
    ),
    "gzip": lambda image, path: image.write_oci_tar(path / "a.gz", compression=Compression.GZIP),
    "zstd": lambda image, path: image.write_oci_tar(path / "a.zst", compression=Compression.ZSTD),
    "xz": lambda image, path: xz_tar(image, path / "a.xz"),
    "stream": lambda image, path: oci_stream(image, path / "a.tar"),
}

each_source = pytest.mark.parametrize("make", OCI_SOURCES.values(), ids=OCI_SOURCES)


@each_source
def test_import_oci_layout_brings_in_every_blob(
    make: Callable[[BuiltImage, Path], Path | Reader],
    images: Images,
    backing: Backing,
    tmp_path: Path,
) -> None:
    """Whatever form the layout has, all blobs come in, labelled, and live through the image."""
    image = mixed()
    [record] = images.import_archive(make(image, tmp_path))
    assert record.name == image.name
    assert str(record.target.digest) == image.digest
    assert record.labels == {"eve-downloaded": "true"}
    assert_whole(backing, image)


@each_source
def test_import_index_brings_in_all_platforms(
    make: Callable[[BuiltImage, Path], Path | Reader],
    images: Images,
    backing: Backing,
    tmp_path: Path,
) -> None:
    """A complete index comes in complete: nested indexes and attestations too."""
    image = build_index([amd64(), build_index([arm64()]), attestation(amd64())])
    images.import_archive(make(image, tmp_path))
    assert_whole(backing, image)
    assert str(images.resolve(image.name).manifest.digest) == amd64().digest
    assert str(images.resolve(image.name, ARM64).manifest.digest) == arm64().digest


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("compressed_layers", [False, True])
def test_import_docker_archive_brings_in_the_image(
    compressed_layers: bool, streamed: bool, images: Images, backing: Backing, tmp_path: Path
) -> None:
    """Config and layers are those of the archive; tags get their canonical names."""
    image = mixed()
    path = image.write_docker_archive(
        tmp_path / "a.tar", tags=["busybox:1", "lfedge/x"], compressed_layers=compressed_layers
    )
    records = images.import_archive(io.BytesIO(path.read_bytes()) if streamed else path)
    assert [record.name for record in records] == [
        "docker.io/library/busybox:1",
        "docker.io/lfedge/x:latest",
    ]
    backing.leases.collect_garbage()
    resolved = images.resolve("busybox:1")
    assert resolved.config_raw == image.config
    assert [str(layer.diff_id) for layer in resolved.layers] == image.diff_ids
    suffixes = ["", ".gzip", ".zstd"] if compressed_layers else ["", "", ""]
    for layer, built, suffix in zip(resolved.layers, image.layers, suffixes, strict=True):
        data = built.blob if compressed_layers else built.tar
        stored = backing.content.read_all(layer.descriptor.digest, limit=len(data))
        assert stored == data
        assert (
            layer.descriptor.media_type == f"application/vnd.docker.image.rootfs.diff.tar{suffix}"
        )
    assert_nothing_left(backing)


def test_import_docker_archive_again_gives_the_same_digests(
    images: Images, containerd: Containerd, settings: Settings, tmp_path: Path
) -> None:
    """The generated manifest is a function of the archive, and the one that ctr makes."""
    path = layered_image(3).write_docker_archive(tmp_path / "a.tar", tags=["a:1"])
    [first] = images.import_archive(path)
    [second] = images.import_archive(io.BytesIO(path.read_bytes()))
    assert first == second
    ctr(settings, "images", "import", "--no-unpack", "--base-name", "ctr", str(path))
    by_ctr = containerd.images.get("docker.io/library/a:1")
    assert by_ctr.target.digest == first.target.digest


def ctr(settings: Settings, *arguments: str) -> str:
    """Run ctr on the test's containerd and namespace."""
    return subprocess.run(
        ["ctr", "--address", str(settings.socket), "--namespace", settings.namespace, *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_import_docker_archive_with_repeated_and_linked_layers(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """Old engines write a layer that occurs twice once, with links to it."""
    layer = build_layer([file("f", b"x")], Compression.NONE)
    image = build_image([layer, layer, layer], platform="linux/amd64")
    entry = {
        "Config": "./c.json",
        "RepoTags": ["a:1"],
        "Layers": ["one/layer.tar", "two/layer.tar", "/three/layer.tar"],
    }
    members = {
        "one/layer.tar": layer.tar,
        "c.json": image.config,
        "manifest.json": encode([entry]),
    }
    links = {"two/layer.tar": "../one/layer.tar", "three/layer.tar": "../two/layer.tar"}
    path = write_tar(tmp_path / "a.tar", members, links=links)
    for source in (path, io.BytesIO(path.read_bytes())):
        images.import_archive(source)
        layers = images.resolve("a:1").layers
        assert [str(each.descriptor.digest) for each in layers] == [layer.digest] * 3
    assert_nothing_left(backing)


def test_import_oci_layout_wins_over_docker_manifest(images: Images, tmp_path: Path) -> None:
    """Newer engines write both; the layout has the real digests."""
    image = mixed()
    members = image.oci_members() | docker_archive_documents([image], compressed_layers=True)
    [record] = images.import_archive(write_tar(tmp_path / "a.tar", members))
    assert str(record.target.digest) == image.digest


@pytest.mark.parametrize("form", ["oci-archive", "oci", "docker-archive"])
def test_import_what_skopeo_wrote_agrees_with_skopeo(
    form: str, images: Images, backing: Backing, tmp_path: Path
) -> None:
    """What the neighbour writes comes in with the digests that it reports."""
    given = build_image(
        [[file(f"f{number}", b"x" * 5000)] for number in range(3)], platform="linux/amd64"
    ).write_oci_layout(tmp_path / "given", annotations={})
    target = f"{form}:{tmp_path / 'written'}:example.com/by/skopeo:1"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci:{given}", target],
        check=True,
        capture_output=True,
    )
    [record] = images.import_archive(tmp_path / "written")
    assert record.name == "example.com/by/skopeo:1"
    backing.leases.collect_garbage()
    resolved = images.resolve(record.name)
    shown = json.loads(
        subprocess.run(
            ["skopeo", "inspect", target],
            check=True,
            capture_output=True,
        ).stdout
    )
    assert [str(layer.descriptor.digest) for layer in resolved.layers] == shown["Layers"]
    if form != "docker-archive":  # there is no manifest in those; skopeo makes up another
        assert str(record.target.digest) == shown["Digest"]
    assert_nothing_left(backing)


def test_import_again_changes_nothing(images: Images, backing: Backing, tmp_path: Path) -> None:
    """The second import of the same archive leaves records, labels and times alone."""
    image = build_index([amd64(), arm64()])
    path = image.write_oci_tar(tmp_path / "a.tar")
    first = images.import_archive(path)
    before = {blob.digest: blob for blob in backing.content.iter_blobs()}
    assert images.import_archive(path) == first
    assert images.import_archive(image.write_oci_layout(tmp_path / "layout")) == first
    assert {blob.digest: blob for blob in backing.content.iter_blobs()} == before


def test_import_does_not_read_blobs_that_are_there(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """A second image on the same layers takes only what is new; a lacking archive will do."""
    base = mixed()
    images.import_archive(base.write_oci_tar(tmp_path / "base.tar"))
    top = build_image(
        [*base.layers, [file("new", b"new")]], name="example.com/top:1", platform="linux/amd64"
    )
    lacking = top.without(*(layer.digest for layer in base.layers))
    images.import_archive(lacking.write_oci_tar(tmp_path / "top.tar"))
    assert images.remove(base.name)
    assert_whole(backing, top)


@each_source
def test_import_index_with_holes_marks_what_was_not_fetched(
    make: Callable[[BuiltImage, Path], Path | Reader],
    images: Images,
    backing: Backing,
    tmp_path: Path,
) -> None:
    """Other platforms may be absent, and come in later without harm."""
    complete = build_index([amd64(), arm64()])
    partial = complete.without(*(digest for digest in arm64().blobs if digest != arm64().digest))
    (tmp_path / "partial").mkdir()
    images.import_archive(make(partial, tmp_path / "partial"))
    labels = labels_of(backing, Digest.parse(complete.digest))
    assert labels["cas.lfedge.org/not-fetched.1"] == arm64().digest
    assert "containerd.io/gc.ref.content.m.1" not in labels
    backing.leases.collect_garbage()
    assert not is_stored(backing, Digest.parse(arm64().digest))
    with pytest.raises(ContentMissingError):
        images.resolve(complete.name, ARM64)
    images.import_archive(make(complete, tmp_path))
    labels = labels_of(backing, Digest.parse(complete.digest))
    assert not [key for key in labels if "not-fetched" in key]
    assert_whole(backing, complete)


def test_import_without_a_layer_that_only_its_owner_gives_out(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """Registries and archives leave such layers out; the hole is known and can be filled."""
    complete = layered_image(2).with_foreign_layer(0, ["https://example.com/layer"])
    gone = Digest.parse(complete.layers[0].digest)
    lacking = complete.without(str(gone)).write_oci_tar(tmp_path / "lacking.tar")

    [record] = images.import_archive(lacking)

    [details] = images.inspect(record.name).platforms
    assert (details.complete, details.missing, details.not_fetched) == (False, (), (gone,))
    images.import_archive(complete.write_oci_tar(tmp_path / "complete.tar"))
    [details] = images.inspect(record.name).platforms
    assert (details.complete, details.not_fetched) == (True, ())
    labels = labels_of(backing, Digest.parse(complete.digest))
    assert not [key for key in labels if "not-fetched" in key]
    assert_whole(backing, complete)


def test_import_partial_after_complete_keeps_what_is_there(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """An archive with fewer platforms takes nothing away."""
    complete = build_index([amd64(), arm64()])
    images.import_archive(complete.write_oci_tar(tmp_path / "complete.tar"))
    partial = complete.without(*arm64().blobs)
    images.import_archive(partial.write_oci_tar(tmp_path / "partial.tar"))
    assert not [
        key for key in labels_of(backing, Digest.parse(complete.digest)) if "not-fetched" in key
    ]
    assert_whole(backing, complete)


def test_import_after_ctr_corrects_its_labels(
    images: Images, backing: Backing, settings: Settings, tmp_path: Path
) -> None:
    """ctr numbers only the children that it takes; ours are numbered by their place."""
    image = build_index([arm64(), amd64()], name="example.com/shared:1")
    path = image.write_oci_tar(tmp_path / "a.tar")
    ctr(settings, "images", "import", "--no-unpack", str(path))
    images.import_archive(path)
    labels = labels_of(backing, Digest.parse(image.digest))
    assert labels["containerd.io/gc.ref.content.m.0"] == arm64().digest
    assert labels["containerd.io/gc.ref.content.m.1"] == amd64().digest
    assert_whole(backing, image)


def test_import_own_platform_in_part_is_refused(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """What this machine would run is there whole or the archive is refused."""
    image = build_index([amd64(), arm64()]).without(amd64().layers[1].digest)
    path = image.write_oci_tar(tmp_path / "a.tar")
    with pytest.raises(ContentMissingError, match=amd64().layers[1].digest):
        images.import_archive(path)
    assert_nothing_came_in(backing)
    images.import_archive(path, platform=ARM64)
    assert images.resolve(image.name, ARM64).layers


def test_import_demanded_platform_that_is_absent_is_refused(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """Who asks for a platform gets it or an error; one that is not listed cannot be missing."""
    image = build_index([amd64(), arm64()]).without(*arm64().blobs)
    path = image.write_oci_tar(tmp_path / "a.tar")
    with pytest.raises(ContentMissingError):
        images.import_archive(path, platform=ARM64)
    assert_nothing_came_in(backing)
    images.import_archive(path, platform=S390X)


def test_import_layout_of_platforms_without_index_becomes_one_image(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """An index.json that lists nameless platforms is itself the image's index."""
    one, two = amd64(), arm64()
    entries = [
        {**one.root, "platform": {"os": "linux", "architecture": "amd64"}},
        {**two.root, "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    members = one.oci_members() | two.oci_members()
    members["index.json"] = encode({"schemaVersion": 2, "manifests": entries})
    [record] = images.import_archive(
        write_tar(tmp_path / "a.tar", members), name="example.com/joined:1"
    )
    assert record.target.digest == Digest.of(members["index.json"])
    backing.leases.collect_garbage()
    assert str(images.resolve("example.com/joined:1", ARM64).manifest.digest) == two.digest


@pytest.mark.parametrize(
    ("annotations", "name", "expected"),
    [
        ({}, "My Image", ["My Image"]),
        ({"org.opencontainers.image.ref.name": "1.0"}, "example.com/a", ["example.com/a:1.0"]),
        ({"org.opencontainers.image.ref.name": "1.0"}, "example.com/a:2", ["example.com/a:2"]),
        ({"org.opencontainers.image.ref.name": "x:1"}, None, ["docker.io/library/x:1"]),
        ({"io.containerd.image.name": "any"}, None, ["any"]),
        ({"io.containerd.image.name": "any"}, "other", ["other"]),
    ],
)
def test_import_names_come_from_caller_or_archive(
    annotations: dict[str, str],
    name: str | None,
    expected: list[str],
    images: Images,
    tmp_path: Path,
) -> None:
    """The caller's name wins; a tag alone completes it."""
    path = amd64().write_oci_tar(tmp_path / "a.tar", annotations=annotations)
    records = images.import_archive(path, name=name)
    assert [record.name for record in records] == expected
    assert [record.name for record in images.iter_images()] == expected


def two_images(path: Path) -> tuple[Path, BuiltImage, BuiltImage]:
    """An OCI tar with two named images."""
    one, two = amd64("example.com/one:1"), replace(arm64(), name="example.com/two:1")
    members = one.oci_members() | two.oci_members()
    entries = [image.index_document()["manifests"][0] for image in (one, two)]
    members["index.json"] = encode({"schemaVersion": 2, "manifests": entries})
    return write_tar(path, members), one, two


def test_import_several_images_gives_each_its_name(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """All images of an archive come in; one name for all is refused."""
    path, one, two = two_images(tmp_path / "a.tar")
    with pytest.raises(UsageError):
        images.import_archive(path, name="one")
    assert_nothing_came_in(backing)
    assert [record.name for record in images.import_archive(path)] == [one.name, two.name]
    assert_whole(backing, one)
    assert_whole(backing, two)


def test_import_moves_a_name_that_exists(images: Images, backing: Backing, tmp_path: Path) -> None:
    """A newer image takes the name; labels of the record stay, old blobs go."""
    old, new = amd64(), mixed(amd64().name)
    [record] = images.import_archive(old.write_oci_tar(tmp_path / "old.tar"))
    images.touch(record.name)
    [moved] = images.import_archive(new.write_oci_tar(tmp_path / "new.tar"))
    assert str(moved.target.digest) == new.digest
    assert moved.labels.keys() == {"eve-downloaded", "cas.lfedge.org/last-used"}
    assert_whole(backing, new)
    assert not is_stored(backing, Digest.parse(old.digest))


def test_import_of_images_failing_at_the_second_name_leaves_the_first_as_it_was(
    images: Images, backing: Backing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names change all together or not at all."""
    path, one, two = two_images(tmp_path / "a.tar")
    older = mixed(one.name)
    images.import_archive(older.write_oci_tar(tmp_path / "older.tar"))

    class Refusing:
        """The image store, which does not take one name."""

        def __getattr__(self, name: str) -> object:
            return getattr(backing.images, name)

        def create(self, name: str, *arguments: object) -> ImageRecord:
            assert name == two.name
            # The first name has moved: nothing but the import's lease keeps what it was.
            backing.leases.collect_garbage()
            raise InterruptedOperationError("not this one")

    with pytest.raises(InterruptedOperationError):
        Images(replace(backing, images=Refusing())).import_archive(path)  # type: ignore[arg-type]
    assert [record.name for record in images.iter_images()] == [one.name]
    assert str(images.get(one.name).target.digest) == older.digest
    assert_whole(backing, older)


def rewritten(change: Callable[[dict[str, object]], object]) -> BuiltImage:
    """An image whose manifest was changed, with right digests."""
    return with_manifest(amd64(), change)


LAYER, CONFIG, MANIFEST = (
    amd64().layers[2].digest,
    amd64().config_digest,
    amd64().digest,
)

BAD_IMAGES: dict[str, tuple[Callable[[], BuiltImage], type[CasError]]] = {
    "layer absent": (lambda: amd64().without(LAYER), ContentMissingError),
    "config absent": (lambda: amd64().without(CONFIG), ContentMissingError),
    "manifest absent": (lambda: amd64().without(MANIFEST), ContentMissingError),
    "layer different": (lambda: corrupt(amd64(), LAYER), DigestMismatchError),
    "config different": (lambda: corrupt(amd64(), CONFIG), DigestMismatchError),
    "manifest different": (lambda: corrupt(amd64(), MANIFEST), DigestMismatchError),
    "manifest is not JSON": (
        lambda: replace(
            amd64(), root={**amd64().root, "digest": str(Digest.of(b"x" * 9)), "size": 9},
            blobs={str(Digest.of(b"x" * 9)): b"x" * 9},
        ),
        MalformedDocumentError,
    ),
    "wrong types": (
        lambda: rewritten(lambda document: document.update(layers="none")),
        MalformedDocumentError,
    ),
    "both manifest and index": (
        lambda: rewritten(lambda document: document.update(manifests=[])),
        MalformedDocumentError,
    ),
    "unknown media type": (
        lambda: replace(amd64(), root={**amd64().root, "mediaType": "text/plain"}),
        MalformedDocumentError,
    ),
    "manifest too large": (
        lambda: rewritten(lambda document: document.update(annotations={"a": "x" * 5_000_000})),
        LimitExceededError,
    ),
    "nested too deeply": (lambda: nested(amd64(), 6), LimitExceededError),
    "index of nothing": (lambda: build_index([]), MalformedDocumentError),
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("make", "error"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_import_bad_image_is_refused_and_leaves_nothing(
    make: Callable[[], BuiltImage],
    error: type[CasError],
    streamed: bool,
    images: Images,
    backing: Backing,
    tmp_path: Path,
) -> None:
    """Each fault has its error, and nothing of the image stays."""
    path = make().write_oci_tar(tmp_path / "a.tar")
    with pytest.raises(error):
        images.import_archive(io.BytesIO(path.read_bytes()) if streamed else path)
    assert_nothing_came_in(backing)


@pytest.mark.parametrize("digest", [LAYER, CONFIG, MANIFEST])
def test_import_blob_of_another_size_is_refused(
    digest: str, images: Images, backing: Backing, tmp_path: Path
) -> None:
    """More bytes than the descriptor says are noticed before anything is stored."""
    path = resized(amd64(), digest).write_oci_tar(tmp_path / "a.tar")
    with pytest.raises(SizeMismatchError):
        images.import_archive(path)
    assert_nothing_came_in(backing)


def docker_members(**changes: object) -> dict[str, bytes]:
    """A docker archive of a plain image, with other values in its manifest.json."""
    members = docker_archive_documents([amd64()])
    [entry] = json.loads(members["manifest.json"])
    members["manifest.json"] = encode([entry | changes])
    return members


def lying_config() -> bytes:
    """A config with a diff ID that is not the layer's."""
    document = json.loads(amd64().config)
    document["rootfs"]["diff_ids"][0] = str(Digest.of(b"another"))
    return encode(document)


def with_bzip2_layer() -> dict[str, bytes]:
    members = docker_archive_documents([amd64()])
    [name, *_] = [name for name in members if name.endswith("layer.tar")]
    members[name] = b"BZh9" + members[name]
    return members


def without_layer() -> dict[str, bytes]:
    members = docker_archive_documents([amd64()])
    del members[next(iter(members))]
    return members


BAD_ARCHIVES: dict[str, tuple[Callable[[], dict[str, bytes]], type[CasError]]] = {
    "no documents": (lambda: {"file": b"content"}, MalformedArchiveError),
    "layout without index": (
        lambda: {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}, MalformedArchiveError,
    ),
    "layout of another version": (
        lambda: {"oci-layout": b'{"imageLayoutVersion":"9"}', "index.json": b"{}"},
        MalformedDocumentError,
    ),
    "index.json is not JSON": (
        lambda: amd64().oci_members() | {"index.json": b"text"}, MalformedDocumentError,
    ),
    "index.json too large": (
        lambda: amd64().oci_members() | {"index.json": b" " * 5_000_000}, LimitExceededError,
    ),
    "no image in index.json": (
        lambda: amd64().oci_members() | {"index.json": encode({"manifests": []})},
        MalformedArchiveError,
    ),
    "docker config absent": (lambda: docker_members(Config="absent"), MalformedArchiveError),
    "docker layer absent": (lambda: docker_members(Layers=["absent"]), MalformedArchiveError),
    "docker layer file absent": (without_layer, MalformedArchiveError),
    "docker layers too few": (lambda: docker_members(Layers=[]), MalformedArchiveError),
    "docker name out of the archive": (
        lambda: docker_members(Config="../../../../etc/hostname"), MalformedArchiveError,
    ),
    "docker name of no file": (lambda: docker_members(Config="a\0b"), MalformedArchiveError),
    "docker tag is none": (lambda: docker_members(RepoTags=["a b"]), MalformedArchiveError),
    "docker diff ID lies": (
        lambda: docker_members(Config="lie.json") | {"lie.json": lying_config()},
        DiffIDMismatchError,
    ),
    "docker layer with bzip2": (with_bzip2_layer, LayerError),
    "docker manifest is no list": (
        lambda: docker_members() | {"manifest.json": b"{}"}, MalformedDocumentError,
    ),
    "docker manifest without images": (
        lambda: docker_members() | {"manifest.json": b"[]"}, MalformedArchiveError,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["tar", "stream", "directory"])
@pytest.mark.parametrize(("make", "error"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_import_bad_archive_is_refused_and_leaves_nothing(
    make: Callable[[], dict[str, bytes]],
    error: type[CasError],
    form: str,
    images: Images,
    backing: Backing,
    tmp_path: Path,
) -> None:
    """Each fault of the archive itself has its error, and nothing stays."""
    source: Path | Reader = write_tar(tmp_path / "a.tar", make())
    if form == "stream":
        source = io.BytesIO((tmp_path / "a.tar").read_bytes())
    elif form == "directory":
        shutil.unpack_archive(tmp_path / "a.tar", tmp_path / "unpacked", filter="data")
        source = tmp_path / "unpacked"
    with pytest.raises(error):
        images.import_archive(source, name="example.com/a:1")
    assert_nothing_came_in(backing)


@pytest.mark.parametrize("compression", list(Compression))
def test_import_truncated_archive_is_refused_and_leaves_nothing(
    compression: Compression, images: Images, backing: Backing, tmp_path: Path
) -> None:
    """A download that stopped is noticed wherever it stopped."""
    whole = mixed().write_oci_tar(tmp_path / "a.tar", compression=compression).read_bytes()
    for part in (0, 10, len(whole) // 3, len(whole) * 2 // 3):
        path = tmp_path / "part"
        path.write_bytes(whole[:part])
        for source in (path, io.BytesIO(whole[:part])):
            with pytest.raises((MalformedArchiveError, ContentMissingError)):
                images.import_archive(source, name="a")
    assert_nothing_came_in(backing)


def test_import_bomb_is_stopped(backing: Backing, settings: Settings, tmp_path: Path) -> None:
    """An archive that expands beyond the limit is refused before it fills the disk."""
    limits = replace(settings.limits, layer_expansion=10, layer_expansion_floor_bytes=1_000_000)
    image = build_image([build_layer([file("zeros", bytes(8_000_000))], Compression.NONE)])
    path = image.write_oci_tar(tmp_path / "a.gz", compression=Compression.GZIP)
    with pytest.raises(LimitExceededError):
        Images(replace(backing, limits=limits)).import_archive(path)
    assert_nothing_came_in(backing)


def test_import_absent_file_is_named(images: Images, backing: Backing, tmp_path: Path) -> None:
    """A path that does not exist is no broken archive."""
    with pytest.raises(SourceNotFoundError, match="absent"):
        images.import_archive(tmp_path / "absent.tar")
    assert_nothing_came_in(backing)


@pytest.mark.parametrize("name", ["", " a", "a\n"])
def test_import_unusable_name_is_refused_before_reading(name: str, images: Images) -> None:
    """A name that no image can have is a usage error, whatever the archive."""
    with pytest.raises(InvalidNameError):
        images.import_archive(Path("/absent"), name=name)


class Stopping:
    """Progress that does something when the first bytes have come."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        pass

    def advance(self, action: str, item: str, amount: int) -> None:
        self._act()

    def finish(self, action: str, item: str) -> None:
        pass


def large_image() -> BuiltImage:
    """Layers of several chunks each, so that they are seeded."""
    layers = []
    for number in range(4):
        tar = layer_tar([file("f", bytes([number]) * 4_000_000)])
        layers.append(BuiltLayer(tar, tar, Compression.NONE))
    return build_image(layers, platform="linux/amd64")


@pytest.mark.parametrize("streamed", [False, True])
def test_import_stopped_by_the_caller_leaves_nothing(
    streamed: bool, images: Images, backing: Backing, tmp_path: Path
) -> None:
    """A flag that is set in the middle of a blob ends the import."""
    path = large_image().write_oci_tar(tmp_path / "a.tar")
    cancel = Cancellation()
    with pytest.raises(InterruptedOperationError):
        images.import_archive(
            io.BytesIO(path.read_bytes()) if streamed else path,
            cancel=cancel,
            progress=Stopping(cancel.set),
        )
    assert_nothing_came_in(backing)


def test_import_interrupted_by_the_keyboard_leaves_nothing(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """Ctrl-C reaches the main thread while others work; they stop and nothing stays."""
    path = large_image().write_oci_tar(tmp_path / "a.tar")
    once = threading.Lock()

    def interrupt() -> None:
        if once.acquire(blocking=False):
            interrupt_wait()

    with pytest.raises(KeyboardInterrupt):
        images.import_archive(path, progress=Stopping(interrupt))
    assert_nothing_came_in(backing)
    assert images.import_archive(path)


def test_import_while_collections_run_loses_nothing(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """The lease keeps every blob until the name does."""
    image = build_index([mixed(), arm64()])
    path = image.write_oci_tar(tmp_path / "a.tar")
    with Collections(backing) as collections:
        for source in (path, io.BytesIO(path.read_bytes())):
            images.import_archive(source)
            collections.wait()
            assert_whole_blobs(backing, image)
            images.remove(image.name)
            collections.wait()
    assert_nothing_came_in(backing)


def assert_whole_blobs(backing: Backing, image: BuiltImage) -> None:
    for digest, data in image.blobs.items():
        assert backing.content.read_all(Digest.parse(digest), limit=len(data)) == data


def test_import_by_several_callers_at_once_gives_all_the_image(
    backing: Backing, tmp_path: Path
) -> None:
    """Callers that import the same archive at once share the work and its result."""
    image = build_index([mixed(), arm64()])
    path = image.write_oci_tar(tmp_path / "a.tar")
    stores = [Images(backing, workers=2, platform=AMD64) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda store: store.import_archive(path), stores))
    assert len({record.target for [record] in results}) == 1
    assert_whole(backing, image)


@pytest.mark.parametrize("streamed", [False, True])
def test_import_where_the_blobs_directory_is_out_of_reach(
    streamed: bool, backing: Backing, tmp_path: Path
) -> None:
    """All goes through containerd's content service then, with the same result."""
    image = build_index([large_image(), arm64()])
    path = image.write_oci_tar(tmp_path / "a.tar")
    images = Images(replace(backing, blobs_directory=None), platform=AMD64)
    images.import_archive(io.BytesIO(path.read_bytes()) if streamed else path)
    assert_whole(backing, image)


def test_import_runnable_image_resolves_to_its_layers(
    images: Images, backing: Backing, tmp_path: Path
) -> None:
    """What was built is what is resolved: layers, diff IDs, chain IDs and config."""
    image = busybox_image()
    images.import_archive(image.write_oci_tar(tmp_path / "a.tar"))
    resolved = images.resolve(image.name)
    assert resolved.config_raw == image.config
    assert [str(layer.chain_id) for layer in resolved.layers] == image.chain_ids
    assert [str(layer.diff_id) for layer in resolved.layers] == image.diff_ids
    assert [str(layer.descriptor.digest) for layer in resolved.layers] == [
        layer.digest for layer in image.layers
    ]
