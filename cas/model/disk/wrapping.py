"""The image around a bare disk image: the same documents for the same blob, anywhere, any time.

Source: lf-edge/edge-containers, which writes the current time and the machine's platform instead.
"""

__all__ = ["WrappedDisk", "wrap_disk"]

from dataclasses import dataclass

import msgspec

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.media_types import OCI_CONFIG, OCI_MANIFEST

_DISK_MEDIA_TYPE = "application/vnd.lfedge.disk.layer.v1+raw"
"""Whatever the format, as EVE writes it; the content tells."""
_TITLE = "disk-root-root"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class WrappedDisk:
    """Documents of an image whose only layer is a disk image.

    Args:
        manifest: Bytes of the manifest.
        config: Bytes of the config.
        target: Descriptor of the manifest.
        layer: Descriptor of the blob.
    """

    manifest: bytes
    config: bytes
    target: Descriptor
    layer: Descriptor


def wrap_disk(digest: Digest, size: int) -> WrappedDisk:
    """Write manifest and config for a blob.

    Args:
        digest: Of the blob.
        size: Its bytes.
    """
    annotations = {
        "org.lfedge.eci.mediaType": _DISK_MEDIA_TYPE,
        "org.lfedge.eci.role": "disk-root",
        "org.opencontainers.image.title": _TITLE,
    }
    config = _encode(
        {
            "created": _EPOCH,
            "architecture": "unknown",
            "os": "unknown",
            "config": {"Labels": {"org.lfedge.eci.artifact.root": f"/{_TITLE}"}},
            "rootfs": {"type": "layers", "diff_ids": [str(digest)]},
        }
    )
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(OCI_CONFIG, Digest.of(config), len(config)),
            "layers": [{**_descriptor(_DISK_MEDIA_TYPE, digest, size), "annotations": annotations}],
        }
    )
    return WrappedDisk(
        manifest,
        config,
        Descriptor(OCI_MANIFEST, Digest.of(manifest), len(manifest)),
        Descriptor(_DISK_MEDIA_TYPE, digest, size, None, annotations),
    )


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _encode(document: dict[str, object]) -> bytes:
    return msgspec.json.encode(document)
