"""Names, details and resolution of images on a real containerd."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    AlreadyExistsError,
    ContentMissingError,
    CorruptBlobError,
    ImageNotFoundError,
    InUseError,
    InvalidNameError,
    LayerError,
    MalformedDocumentError,
    PlatformNotFoundError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.platforms import parse_platform
from cas.model.records import LeaseID
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.filters import parse_image_filters
from cas.store.image.images import Images
from tests.support.images import (
    BuiltImage,
    attestation,
    build_image,
    build_index,
    layered_image,
)
from tests.support.layers import file
from tests.support.stores import (
    assert_nothing_left,
    backing_for,
    blob_file,
    is_stored,
    labels_of,
    own_blobs,
    utc_now,
)

pytestmark = pytest.mark.once  # names and documents, which are ours

AMD64 = parse_platform("linux/amd64")
ARM64 = parse_platform("linux/arm64")
ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def images(backing: Backing) -> Images:
    return Images(backing, platform=AMD64)


Add = Callable[[BuiltImage], BuiltImage]


@pytest.fixture
def add(images: Images, tmp_path: Path) -> Add:
    """Import a built image."""

    def add(image: BuiltImage) -> BuiltImage:
        images.import_archive(image.write_oci_tar(tmp_path / "given.tar"), name=image.name)
        return image

    return add


def amd64(name: str = "docker.io/library/amd64:1") -> BuiltImage:
    return layered_image(2, name=name, platform="linux/amd64", seed="amd64")


def arm64() -> BuiltImage:
    return layered_image(2, platform="linux/arm64", seed="arm64")


def root_of(image: BuiltImage) -> Descriptor:
    return Descriptor(
        str(image.root["mediaType"]), Digest.parse(image.digest), int(image.root["size"])
    )


def put_blobs(backing: Backing, image: BuiltImage) -> LeaseID:
    """Put the blobs one by one, unlabelled, under a lease that is given back."""
    lease = LeaseID(f"test-{uuid.uuid4()}")
    backing.leases.create(lease, {})
    for digest, data in image.blobs.items():
        backing.content.put(f"test-{digest}", lease, data, Digest.parse(digest), {})
    return lease


def test_get_short_name_finds_the_canonical_one(images: Images, add: Add) -> None:
    """docker's short form leads to the full name; an exact match comes first."""
    add(amd64("docker.io/library/amd64:1"))
    assert images.get("amd64:1").name == "docker.io/library/amd64:1"
    assert images.exists("library/amd64:1")
    images.tag("amd64:1", "amd64:1")
    assert images.get("amd64:1").name == "amd64:1"


@pytest.mark.parametrize("name", ["absent", "Not A Reference", "", "a:b:c"])
def test_get_absent_image_is_not_found(name: str, images: Images) -> None:
    """Whatever is asked for, an absent image is not found and nothing worse."""
    assert not images.exists(name)
    with pytest.raises(ImageNotFoundError):
        images.get(name)


def test_iter_images_gives_all_or_those_that_match(images: Images, add: Add) -> None:
    """Filters choose among the names."""
    add(amd64("a:1"))
    images.tag("a:1", "b:1")
    assert [record.name for record in images.iter_images()] == ["a:1", "b:1"]
    filters = parse_image_filters(["reference=b*"], now=utc_now())
    assert [record.name for record in images.iter_images(filters)] == ["b:1"]


def test_tag_gives_a_second_name_that_keeps_the_content(
    images: Images, backing: Backing, add: Add
) -> None:
    """Either name keeps the image; tagging again changes nothing."""
    image = add(amd64("a:1"))
    record = images.tag("a:1", "b:1")
    assert images.tag("a:1", "b:1") == record
    assert images.remove("a:1")
    backing.leases.collect_garbage()
    assert own_blobs(backing) == {Digest.parse(digest) for digest in image.blobs}
    assert_nothing_left(backing)


def test_tag_moves_a_name_that_exists(images: Images, add: Add) -> None:
    """The name points to the other image afterwards."""
    add(amd64("a:1"))
    other = add(arm64().named("b:1"))
    images.tag("b:1", "a:1")
    assert str(images.get("a:1").target.digest) == other.digest


def test_tag_of_absent_image_or_to_bad_name_is_refused(images: Images, add: Add) -> None:
    """Neither leaves a name."""
    add(amd64("a:1"))
    with pytest.raises(ImageNotFoundError):
        images.tag("absent", "b:1")
    with pytest.raises(InvalidNameError):
        images.tag("a:1", " b")
    assert [record.name for record in images.iter_images()] == ["a:1"]


@pytest.mark.parametrize("make", [amd64, lambda: build_index([amd64(), arm64()])])
def test_create_from_single_blobs_keeps_the_whole_image(
    make: Callable[[], BuiltImage], images: Images, backing: Backing
) -> None:
    """Blobs that came one by one live through the image once it is named."""
    image = make()
    lease = put_blobs(backing, image)
    record = images.create("created", root_of(image))
    assert images.create("created", root_of(image)) == record
    assert record.labels == {"eve-downloaded": "true"}
    backing.leases.delete(lease)
    backing.leases.collect_garbage()
    assert own_blobs(backing) == {Digest.parse(digest) for digest in image.blobs}
    assert labels_of(backing, Digest.parse(amd64().digest))["eve-downloaded"] == "true"
    assert_nothing_left(backing)


def test_create_on_a_name_that_points_elsewhere_is_refused(
    images: Images, backing: Backing, add: Add
) -> None:
    """An existing name moves only by replace, which wants it to exist."""
    add(amd64("a:1"))
    other = arm64()
    lease = put_blobs(backing, other)
    with pytest.raises(AlreadyExistsError):
        images.create("a:1", root_of(other))
    with pytest.raises(ImageNotFoundError):
        images.replace("absent", root_of(other))
    images.touch("a:1")
    record = images.replace("a:1", root_of(other))
    assert str(record.target.digest) == other.digest
    assert "cas.lfedge.org/last-used" in record.labels
    backing.leases.delete(lease)
    backing.leases.collect_garbage()
    assert own_blobs(backing) == {Digest.parse(digest) for digest in other.blobs}


@pytest.mark.parametrize("number", range(4))
def test_create_with_a_blob_missing_is_refused(
    number: int, images: Images, backing: Backing
) -> None:
    """A name for content that is not there is never made."""
    image = amd64()
    missing = list(image.blobs)[number]
    put_blobs(backing, image.without(missing))
    with pytest.raises(ContentMissingError, match=missing):
        images.create("created", root_of(image))
    assert not images.exists("created")


def test_create_for_a_blob_that_is_no_image_is_refused(images: Images, backing: Backing) -> None:
    """A layer is no image, whatever its descriptor claims."""
    image = amd64()
    put_blobs(backing, image)
    layer = image.layers[0]
    for media_type in ("application/octet-stream", str(image.root["mediaType"])):
        target = Descriptor(media_type, Digest.parse(layer.digest), len(layer.blob))
        with pytest.raises(MalformedDocumentError):
            images.create("created", target)
    assert list(images.iter_images()) == []


def test_remove_image_frees_its_content_with_the_next_collection(
    images: Images, backing: Backing, add: Add
) -> None:
    """Removing tells whether there was one; shared blobs stay with the other image."""
    base = add(amd64("a:1"))
    top = build_image([*base.layers, [file("new", b"new")]], name="top:1", platform="linux/amd64")
    add(top)
    assert images.remove("a:1")
    assert not images.remove("a:1")
    backing.leases.collect_garbage()
    assert own_blobs(backing) == {Digest.parse(digest) for digest in top.blobs}
    assert images.remove("top:1")
    backing.leases.collect_garbage()
    assert own_blobs(backing) == set()


def volume_of(image: str) -> VolumeRecord:
    name = VolumeName(uuid.uuid4(), 0)
    digest = Digest.parse(ABSENT)
    return VolumeRecord(name, image, digest, digest, None, str(name), "overlayfs", False, utc_now())


def test_remove_image_that_a_volume_names_takes_force(
    images: Images, backing: Backing, add: Add
) -> None:
    """The volumes are named in the error; other images are not concerned."""
    add(amd64("a:1"))
    images.tag("a:1", "b:1")
    volumes = [volume_of("a:1") for _ in range(7)]
    used = Images(replace(backing, volumes=lambda: iter(volumes)))
    assert used.remove("b:1")
    with pytest.raises(InUseError, match=str(volumes[0].name)) as caught:
        used.remove("a:1")
    assert "and 2 more" in caught.value.message
    assert used.exists("a:1")
    assert used.remove("a:1", force=True)


def test_touch_remembers_the_hour(
    backing: Backing, add: Add, containerd: Containerd, settings: Settings
) -> None:
    """The label changes from hour to hour and not within one; an absent image is no error."""
    add(amd64("a:1"))
    now = utc_now()  # an hour that ends in the middle of the test is another one
    images = Images(backing_for(containerd, settings, clock=lambda: now))
    images.touch("a:1")
    first = images.get("a:1")
    assert first.labels["cas.lfedge.org/last-used"].endswith(":00:00Z")
    now += timedelta(hours=1)
    images.touch("a:1")
    second = images.get("a:1")
    assert second.labels["cas.lfedge.org/last-used"] > first.labels["cas.lfedge.org/last-used"]
    images.touch("a:1")
    assert images.get("a:1") == second
    images.touch("absent")


def test_inspect_complete_image_tells_all(images: Images, add: Add) -> None:
    """Details of an index: platforms, sizes, what this machine would run."""
    one, two = amd64(), arm64()
    image = add(build_index([one, two, attestation(one)]))
    details = images.inspect(image.name)
    document = details.as_document()
    assert document["digest"] == image.digest
    assert document["size"] == sum(map(len, image.blobs.values()))
    assert document["platforms"] == [
        {
            "platform": platform,
            "digest": each.digest,
            "size": sum(map(len, each.blobs.values())),
            "complete": True,
            "missing": [],
            "not_fetched": [],
        }
        for platform, each in (("linux/amd64", one), ("linux/arm64", two))
    ]
    assert document["manifest"] == one.digest
    assert document["config_digest"] == one.config_digest
    assert [layer["chain_id"] for layer in document["layers"]] == one.chain_ids  # type: ignore[attr-defined]
    assert document["unpacked"] is False
    assert document["problem"] is None


def test_inspect_image_with_holes_tells_what_is_missing(
    images: Images, backing: Backing, add: Add
) -> None:
    """Foreign platforms that were not fetched and lost content are part of the answer."""
    one, two = amd64(), arm64()
    image = add(build_index([one, two]).without(two.digest))
    details = images.inspect(image.name)
    assert [platform.complete for platform in details.platforms] == [True, False]
    assert details.platforms[1].missing == (Digest.parse(two.digest),)
    assert details.problem is None
    backing.content.delete(Digest.parse(one.config_digest))
    damaged = images.inspect(image.name)
    assert damaged.platforms[0].missing == (Digest.parse(one.config_digest),)
    assert damaged.resolved is None
    assert damaged.problem is not None
    assert one.config_digest in damaged.problem
    assert damaged.as_document()["config"] is None


def test_inspect_image_for_other_machines_tells_why_it_does_not_run(
    images: Images, add: Add
) -> None:
    """An index without this platform is no error to look at."""
    image = add(build_index([arm64()]))
    details = images.inspect(image.name)
    assert details.problem is not None
    assert "linux/amd64" in details.problem
    assert "linux/arm64" in details.problem


def test_inspect_image_without_index_takes_platform_from_config(images: Images, add: Add) -> None:
    """A single manifest says its platform in its config only."""
    image = add(amd64())
    [platform] = images.inspect(image.name).platforms
    assert str(platform.platform) == "linux/amd64"


def test_resolve_index_chooses_by_preference(images: Images, add: Add) -> None:
    """The best entry wins wherever it stands, attestations never do."""
    small = layered_image(1, platform="linux/386", seed="386")
    image = add(build_index([attestation(amd64()), small, arm64(), amd64()]))
    assert str(images.resolve(image.name).manifest.digest) == amd64().digest
    for text, wanted in (("linux/386", small), ("linux/arm64/v8", arm64())):
        resolved = images.resolve(image.name, parse_platform(text))
        assert str(resolved.manifest.digest) == wanted.digest
        assert str(resolved.root.digest) == image.digest


def test_resolve_smaller_sibling_is_taken_where_nothing_better_is_listed(
    images: Images, add: Add
) -> None:
    """A 64-bit machine runs a 32-bit image."""
    small = layered_image(1, platform="linux/386", seed="386")
    image = add(build_index([arm64(), small]))
    assert str(images.resolve(image.name).manifest.digest) == small.digest


def test_resolve_choice_does_not_depend_on_what_is_present(
    images: Images, backing: Backing, add: Add
) -> None:
    """A missing best match is an error, never a reason for another image."""
    small = layered_image(1, platform="linux/386", seed="386")
    image = add(build_index([small, amd64()]))
    backing.content.delete(Digest.parse(amd64().digest))
    with pytest.raises(ContentMissingError, match=amd64().digest):
        images.resolve(image.name)


def test_resolve_platform_that_is_not_listed_is_refused(images: Images, add: Add) -> None:
    """The error tells what there is."""
    image = add(build_index([amd64(), arm64()]))
    with pytest.raises(PlatformNotFoundError, match="linux/amd64, linux/arm64"):
        images.resolve(image.name, parse_platform("linux/s390x"))


def test_resolve_entries_without_platform_are_judged_by_their_config(
    images: Images, add: Add
) -> None:
    """Where the index says nothing the config decides, artifacts left aside."""
    artifact = attestation(amd64())
    nameless = replace(
        artifact,
        root={key: artifact.root[key] for key in ("mediaType", "digest", "size")},
    )
    image = add(build_index([nameless, arm64(), amd64()], platforms=False))
    assert str(images.resolve(image.name).manifest.digest) == amd64().digest
    assert str(images.resolve(image.name, ARM64).manifest.digest) == arm64().digest


def test_resolve_single_manifest_is_taken_whatever_its_platform(images: Images, add: Add) -> None:
    """There is nothing to choose from."""
    image = add(arm64())
    assert str(images.resolve(image.name).manifest.digest) == image.digest


def test_resolve_image_without_layers_has_none(images: Images, add: Add) -> None:
    """An empty image is an image."""
    image = add(build_image([], platform="linux/amd64"))
    assert images.resolve(image.name).layers == ()
    assert images.inspect(image.name).unpacked


def test_resolve_artifact_is_refused(images: Images, add: Add) -> None:
    """A statement about an image is not one."""
    image = add(attestation(amd64()).named("example.com/statement:1"))
    with pytest.raises(MalformedDocumentError):
        images.resolve(image.name)


def test_resolve_more_diff_ids_than_layers_is_refused(images: Images, add: Add) -> None:
    """Manifest and config must tell the same story."""
    layers = amd64().layers
    image = add(build_image(layers, platform="linux/amd64", diff_ids=[amd64().diff_ids[0]] * 3))
    with pytest.raises(MalformedDocumentError, match="2 layers"):
        images.resolve(image.name)


@pytest.mark.parametrize(
    ("media_type", "error"),
    [
        ("application/vnd.oci.image.layer.v1.tar+encrypted", LayerError),
        ("application/vnd.in-toto+json", MalformedDocumentError),
    ],
)
def test_resolve_layer_of_another_type_is_refused(
    media_type: str, error: type[Exception], images: Images, add: Add
) -> None:
    """Encrypted layers cannot be unpacked; other documents are not layers, so one is missing."""
    image = amd64()
    manifest = image.manifest.replace(
        b"application/vnd.oci.image.layer.v1.tar+gzip", media_type.encode(), 1
    )
    digest = str(Digest.of(manifest))
    blobs = image.blobs | {digest: manifest}
    root = {**image.root, "digest": digest, "size": len(manifest)}
    add(replace(image, root=root, blobs=blobs))
    with pytest.raises(error):
        images.resolve(image.name)


def test_resolve_spoilt_document_is_noticed(images: Images, backing: Backing, add: Add) -> None:
    """Documents are hashed when they are read, since all else hangs on them."""
    image = add(amd64())
    path = blob_file(backing, Digest.parse(image.digest))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"config", b"CONFIG"))
    with pytest.raises(CorruptBlobError):
        images.resolve(image.name)


def test_names_changed_by_several_callers_at_once_end_in_one_state(
    images: Images, backing: Backing, add: Add
) -> None:
    """Tagging and removing at the same time never fails and never leaves half a name."""
    image = add(amd64("a:1"))
    add(arm64().named("b:1"))
    failures: list[BaseException] = []

    def work(change: Callable[[], object]) -> None:
        try:
            for _ in range(10):
                change()
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    changes: list[Callable[[], object]] = [
        lambda: images.tag("a:1", "c:1"),
        lambda: images.tag("b:1", "c:1"),
        lambda: images.remove("c:1"),
        lambda: images.touch("c:1"),
    ]
    threads = [threading.Thread(target=work, args=(change,)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    images.tag("a:1", "c:1")
    assert str(images.get("c:1").target.digest) == image.digest
    assert is_stored(backing, Digest.parse(image.digest))
    assert_nothing_left(backing)
