"""Media types of image content and what each means to the store."""

__all__ = [
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_MANIFEST",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "is_config",
    "is_index",
    "is_layer",
    "is_manifest",
    "is_nondistributable_layer",
    "is_unpackable_layer",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = f"{DOCKER_LAYER}.gzip"
DOCKER_LAYER_ZSTD = f"{DOCKER_LAYER}.zstd"

_OCI_LAYERS = "application/vnd.oci.image.layer."

_NONDISTRIBUTABLE = (
    f"{_OCI_LAYERS}nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)

_LAYERS = frozenset(
    base + suffix
    for base, suffixes in (
        (OCI_LAYER, ("", "+gzip", "+zstd")),
        (f"{_NONDISTRIBUTABLE[0]}v1.tar", ("", "+gzip", "+zstd")),
        (DOCKER_LAYER, ("", ".gzip", ".zstd")),
        (f"{_NONDISTRIBUTABLE[1]}diff.tar", ("", ".gzip", ".zstd")),
    )
    for suffix in suffixes
)


def is_manifest(media_type: str) -> bool:
    """Whether it is the manifest of one image (or artifact)."""
    return media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def is_index(media_type: str) -> bool:
    """Whether it is an index (docker: manifest list) of manifests."""
    return media_type in (OCI_INDEX, DOCKER_INDEX)


def is_config(media_type: str) -> bool:
    """Whether it is the config of a container image."""
    return media_type in (OCI_CONFIG, DOCKER_CONFIG)


def is_layer(media_type: str) -> bool:
    """Whether it counts as layer, also of a kind that cannot be unpacked (say, encrypted)."""
    return media_type in _LAYERS or media_type.startswith(_OCI_LAYERS)


def is_nondistributable_layer(media_type: str) -> bool:
    """Whether it is a layer that registries and archives may lack, as its owner gives it out.

    Source: OCI image specification, "Non-Distributable Layers"; docker calls them foreign.
    """
    return media_type.startswith(_NONDISTRIBUTABLE)


def is_unpackable_layer(media_type: str) -> bool:
    """Whether it is a layer that can become a snapshot.

    How it is compressed is told by its content alone: tools are known to write the wrong type.
    """
    return media_type in _LAYERS
