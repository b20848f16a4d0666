"""Which media types mean what."""

from collections.abc import Callable

import pytest

from cas.model.media_types import (
    is_config,
    is_index,
    is_layer,
    is_manifest,
    is_nondistributable_layer,
    is_unpackable_layer,
)

KINDS = {
    "application/vnd.oci.image.manifest.v1+json": is_manifest,
    "application/vnd.docker.distribution.manifest.v2+json": is_manifest,
    "application/vnd.oci.image.index.v1+json": is_index,
    "application/vnd.docker.distribution.manifest.list.v2+json": is_index,
    "application/vnd.oci.image.config.v1+json": is_config,
    "application/vnd.docker.container.image.v1+json": is_config,
    "application/vnd.oci.image.layer.v1.tar": is_layer,
    "application/vnd.oci.image.layer.v1.tar+gzip": is_layer,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": is_layer,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": is_layer,
}


@pytest.mark.parametrize(("media_type", "kind"), KINDS.items())
def test_media_type_known_belongs_to_one_kind(media_type: str, kind: Callable[[str], bool]) -> None:
    """Each known type is of exactly one kind."""
    predicates = (is_manifest, is_index, is_config, is_layer)
    assert [predicate for predicate in predicates if predicate(media_type)] == [kind]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.in-toto+json",
        "application/vnd.oci.empty.v1+json",
        "application/octet-stream",
        "",
    ],
)
def test_media_type_unknown_belongs_to_no_kind(media_type: str) -> None:
    """Unknown types are nothing that is followed or unpacked."""
    for predicate in (is_manifest, is_index, is_config, is_layer, is_unpackable_layer):
        assert not predicate(media_type)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layer_of_known_compression_can_be_unpacked(media_type: str) -> None:
    """OCI's and docker's layers, foreign ones too, become snapshots."""
    assert is_layer(media_type)
    assert is_unpackable_layer(media_type)


def test_encrypted_layer_is_a_layer_that_cannot_be_unpacked() -> None:
    """Encrypted layers count as layers, so that diff IDs stay matched, but are not unpacked."""
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    assert is_layer(media_type)
    assert not is_unpackable_layer(media_type)


def test_layer_that_may_not_be_distributed_is_known_in_both_families() -> None:
    """OCI's and docker's types of such layers are told from the ordinary ones."""
    foreign = {media_type for media_type in KINDS if is_nondistributable_layer(media_type)}
    assert foreign == {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    assert is_nondistributable_layer("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd")
