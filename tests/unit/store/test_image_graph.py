"""The walk over an image's documents, against contents in memory."""

from dataclasses import replace
from typing import Any

import pytest

from cas.errors import (
    CasError,
    ContentMissingError,
    LimitExceededError,
    MalformedDocumentError,
    SizeMismatchError,
)
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.limits import Limits
from cas.model.platforms import parse_platform
from cas.store.image.document_walk import ImageGraph, PlannedBlob
from tests.support.images import (
    BuiltImage,
    attestation,
    build_image,
    build_index,
    descriptor,
    layered_image,
)

LIMITS = Limits()
AMD64, ARM64, S390X = (parse_platform(text) for text in ("amd64", "arm64", "s390x"))


class MemoryContents:
    """Blobs of a built image."""

    def __init__(self, image: BuiltImage) -> None:
        self._blobs = image.blobs

    def has(self, descriptor: Descriptor, /) -> bool:
        data = self._blobs.get(str(descriptor.digest))
        if data is not None and len(data) != descriptor.size:
            raise SizeMismatchError("size")
        return data is not None

    def read(self, descriptor: Descriptor, /) -> bytes:
        return self._blobs[str(descriptor.digest)]


def root_of(image: BuiltImage) -> Descriptor:
    """The image's root as value."""
    return Descriptor(
        str(image.root["mediaType"]), Digest.parse(image.digest), int(image.root["size"])
    )


def plan(
    image: BuiltImage,
    platform: Platform = AMD64,
    *,
    demanded: bool = False,
    limits: Limits = LIMITS,
) -> dict[str, PlannedBlob]:
    """Plan and give the blobs by digest, having checked their order."""
    graph = ImageGraph(MemoryContents(image), limits, platform, demanded=demanded)
    blobs = graph.plan(root_of(image))
    seen: set[str] = set()
    for blob in blobs:
        references = {
            value for key, value in blob.labels.items() if key.startswith("containerd.io/gc.ref")
        }
        assert references <= seen, "a child stands after its parent"
        seen.add(str(blob.descriptor.digest))
    return {str(blob.descriptor.digest): blob for blob in blobs}


def amd64(**options: Any) -> BuiltImage:
    return layered_image(2, platform="linux/amd64", seed="amd64", **options)


def arm64(**options: Any) -> BuiltImage:
    return layered_image(2, platform="linux/arm64", seed="arm64", **options)


def test_plan_single_image_has_every_blob_and_its_labels() -> None:
    """Layers, config and manifest are planned, the manifest with references to all."""
    image = amd64()
    planned = plan(image)
    assert planned.keys() == image.blobs.keys()
    labels = planned[image.digest].labels
    assert labels == {
        "containerd.io/gc.ref.content.config": image.config_digest,
        "containerd.io/gc.ref.content.l.0": image.layers[0].digest,
        "containerd.io/gc.ref.content.l.1": image.layers[1].digest,
        "cas.lfedge.org/media-type": image.root["mediaType"],
        "eve-downloaded": "true",
    }
    assert planned[image.config_digest].labels == {
        "cas.lfedge.org/media-type": "application/vnd.oci.image.config.v1+json"
    }


def test_plan_complete_index_has_all_platforms_and_attestations() -> None:
    """Whatever is complete belongs to the image."""
    index = build_index([amd64(), arm64(), attestation(amd64())])
    planned = plan(index)
    assert planned.keys() == index.blobs.keys()
    assert not [key for key in planned[index.digest].labels if "not-fetched" in key]
    assert "eve-downloaded" not in planned[index.digest].labels


def test_plan_repeated_layers_and_entries_count_once() -> None:
    """The same layer twice in an image and the same image twice in an index are ordinary."""
    layer = amd64().layers[0]
    twice = build_image([layer, layer], platform="linux/amd64")
    index = build_index([twice, twice])
    planned = plan(index)
    assert len(planned) == 4
    assert planned[twice.digest].labels["containerd.io/gc.ref.content.l.1"] == layer.digest
    assert planned[index.digest].labels["containerd.io/gc.ref.content.m.1"] == twice.digest


@pytest.mark.parametrize("absent", ["manifest", "layer", "config", "everything"])
def test_plan_foreign_platform_with_holes_is_marked_as_not_fetched(absent: str) -> None:
    """An incomplete manifest of another platform is left out whole and named on the index."""
    foreign = arm64()
    missing = {
        "manifest": [foreign.digest],
        "layer": [foreign.layers[1].digest],
        "config": [foreign.config_digest],
        "everything": list(foreign.blobs),
    }[absent]
    index = build_index([amd64(), foreign]).without(*missing)
    planned = plan(index)
    labels = planned[index.digest].labels
    assert labels["cas.lfedge.org/not-fetched.1"] == foreign.digest
    assert "containerd.io/gc.ref.content.m.1" not in labels
    assert planned.keys().isdisjoint(foreign.blobs)


def test_plan_own_platform_with_holes_is_refused() -> None:
    """What this machine would run must not be there in part only."""
    own = amd64()
    index = build_index([own, arm64()]).without(own.layers[0].digest)
    with pytest.raises(ContentMissingError, match=own.layers[0].digest):
        plan(index)
    assert own.digest not in plan(index, ARM64)


def test_plan_own_platform_absent_altogether_is_refused_only_if_demanded() -> None:
    """An archive made for another machine can be brought in; not if the platform was asked for."""
    own = amd64()
    index = build_index([own, arm64()]).without(*own.blobs)
    assert plan(index)[index.digest].labels["cas.lfedge.org/not-fetched.0"] == own.digest
    with pytest.raises(ContentMissingError, match=own.digest):
        plan(index, demanded=True)


def test_plan_platform_that_index_does_not_list_is_no_obstacle() -> None:
    """What the index never had cannot be missing."""
    index = build_index([amd64(), arm64()])
    assert plan(index, S390X, demanded=True).keys() == index.blobs.keys()


def test_plan_index_without_any_complete_manifest_is_refused() -> None:
    """At least one image must be whole."""
    one, two = amd64(), arm64()
    index = build_index([one, two]).without(one.config_digest, two.config_digest)
    with pytest.raises(ContentMissingError):
        plan(index, S390X)


@pytest.mark.parametrize("absent", range(4))
def test_plan_single_image_with_any_hole_is_refused(absent: int) -> None:
    """A manifest alone must be complete, whatever its platform."""
    image = arm64()
    missing = list(image.blobs)[absent]
    with pytest.raises(ContentMissingError, match=missing):
        plan(image.without(missing))


@pytest.mark.parametrize("docker", [False, True])
def test_plan_absent_layer_that_only_its_owner_gives_out_is_marked(docker: bool) -> None:
    """A layer that may not be distributed is a hole that is known, as registries leave it."""
    ordinary = build_image(amd64().layers, platform="linux/amd64", docker=docker)
    image = ordinary.with_foreign_layer(0, ["https://example.com/layer"])
    gone = image.layers[0].digest
    labels = plan(image.without(gone))[image.digest].labels
    assert labels["cas.lfedge.org/not-fetched.1"] == gone
    assert gone not in [value for key, value in labels.items() if "gc.ref" in key]
    assert plan(image).keys() == image.blobs.keys()


def test_plan_absent_layer_without_a_source_is_refused() -> None:
    """What nobody could get later is missing, whatever its type says."""
    image = amd64().with_foreign_layer(0, [])
    with pytest.raises(ContentMissingError, match=image.layers[0].digest):
        plan(image.without(image.layers[0].digest))
    other = amd64().with_foreign_layer(0, ["https://example.com/layer"])
    with pytest.raises(ContentMissingError, match=other.layers[1].digest):
        plan(other.without(other.layers[1].digest))


def test_plan_nested_index_is_followed() -> None:
    """Indexes in indexes count; the label of a nested one is containerd's."""
    nested = build_index([arm64()])
    index = build_index([amd64(), nested])
    planned = plan(index)
    assert planned.keys() == index.blobs.keys()
    assert planned[index.digest].labels["containerd.io/gc.ref.content.0"] == nested.digest
    assert planned[index.digest].level == 3


def test_plan_nested_index_with_own_platform_in_part_is_refused() -> None:
    """The own platform is found in nested indexes as well."""
    own = amd64()
    index = build_index([arm64(), build_index([own])]).without(own.layers[0].digest)
    with pytest.raises(ContentMissingError, match=own.layers[0].digest):
        plan(index)


def test_plan_nesting_above_the_limit_is_refused() -> None:
    """Depth is limited."""
    image = amd64()
    for _ in range(LIMITS.index_depth):
        image = build_index([image])
    plan(image)
    with pytest.raises(LimitExceededError, match="deep"):
        plan(build_index([image]))


def test_plan_too_many_documents_are_refused() -> None:
    """Their number is limited over the whole image."""
    limits = replace(LIMITS, descriptors=5)
    images = [layered_image(1, platform="linux/amd64", seed=str(each)) for each in range(3)]
    plan(build_index(images), limits=limits)
    with pytest.raises(LimitExceededError):
        plan(build_index([build_index(images), build_index(images, docker=True)]), limits=limits)


def test_plan_too_many_blobs_are_refused() -> None:
    """So is that of all blobs, present or not."""
    image = amd64()
    plan(image, limits=replace(LIMITS, archive_members=len(image.blobs)))
    with pytest.raises(LimitExceededError):
        plan(image, limits=replace(LIMITS, archive_members=2))


def test_plan_document_above_the_limit_is_refused_unread() -> None:
    """The descriptor's size is enough to refuse."""
    image = amd64()
    with pytest.raises(LimitExceededError):
        plan(image, limits=replace(LIMITS, document_bytes=100))


def test_plan_wrong_size_of_descriptor_is_refused() -> None:
    """A child with another size than its manifest says is an error, not a hole."""
    image = amd64()
    manifest = image.manifest.replace(b'"size":', b'"size":9')
    root = descriptor(str(image.root["mediaType"]), manifest)
    broken = replace(image, root=root, blobs=image.blobs | {root["digest"]: manifest})
    with pytest.raises(SizeMismatchError):
        plan(broken)


def raw_image(document: bytes, media_type: str) -> BuiltImage:
    """Bytes as the root of an image."""
    root = descriptor(media_type, document)
    return BuiltImage(root, {root["digest"]: document})


@pytest.mark.parametrize(
    ("document", "media_type", "error"),
    [
        (b"text", "application/vnd.oci.image.manifest.v1+json", MalformedDocumentError),
        (b"{}", "application/vnd.oci.image.index.v1+json", MalformedDocumentError),
        (
            b'{"schemaVersion": 2, "manifests": []}',
            "application/vnd.oci.image.index.v1+json",
            MalformedDocumentError,
        ),
        (b"blob", "application/octet-stream", MalformedDocumentError),
    ],
)
def test_plan_root_that_is_no_image_is_refused(
    document: bytes, media_type: str, error: type[CasError]
) -> None:
    """Text, empty indexes and blobs are no images."""
    with pytest.raises(error):
        plan(raw_image(document, media_type))


def test_plan_manifest_as_layer_is_refused() -> None:
    """A manifest cannot hide below a manifest."""
    inner = amd64()
    media_type = str(inner.root["mediaType"])
    document = inner.manifest.replace(
        b'"application/vnd.oci.image.layer.v1.tar+gzip"', f'"{media_type}"'.encode()
    )
    outer = raw_image(document, media_type)
    with pytest.raises(MalformedDocumentError):
        plan(replace(outer, blobs=outer.blobs | inner.blobs))


def test_plan_malformed_config_is_refused() -> None:
    """A config that cannot be read is found before anything is stored."""
    image = build_image([], platform="linux/amd64")
    config = b'{"rootfs": 1}'
    manifest = image.manifest.replace(
        image.config_digest.encode(), str(Digest.of(config)).encode()
    ).replace(f'"size":{len(image.config)}'.encode(), f'"size":{len(config)}'.encode())
    broken = raw_image(manifest, str(image.root["mediaType"]))
    blobs = broken.blobs | {str(Digest.of(config)): config}
    with pytest.raises(MalformedDocumentError):
        plan(replace(broken, blobs=blobs))


def test_plan_index_entry_of_unknown_type_is_kept_if_present() -> None:
    """Blobs that an index lists without being a manifest are leaves."""
    leaf = raw_image(b"data", "text/plain")
    index = build_index([amd64(), leaf])
    planned = plan(index)
    assert planned[leaf.digest].level == 0
    assert planned[index.digest].labels["containerd.io/gc.ref.content.0"] == leaf.digest
