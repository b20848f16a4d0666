"""Images that are not what they should be, one fault each."""

import json
from collections.abc import Callable
from dataclasses import replace

from tests.support.images import (
    OCI_INDEX,
    BuiltImage,
    Json,
    build_index,
    descriptor,
    digest_of,
    encode,
)


def corrupt(image: BuiltImage, digest: str) -> BuiltImage:
    """One blob with a flipped byte."""
    data = bytearray(image.blobs[digest])
    data[len(data) // 2] ^= 1
    return replace(image, blobs=image.blobs | {digest: bytes(data)})


def resized(image: BuiltImage, digest: str) -> BuiltImage:
    """One blob with a byte too many."""
    return replace(image, blobs=image.blobs | {digest: image.blobs[digest] + b"x"})


def with_manifest(image: BuiltImage, change: Callable[[Json], object]) -> BuiltImage:
    """Another manifest under its right digest."""
    document = json.loads(image.manifest)
    change(document)
    return with_root(image, encode(document))


def with_root(image: BuiltImage, raw: bytes) -> BuiltImage:
    """Any bytes in place of the manifest, under their right digest."""
    root = {**image.root, "digest": digest_of(raw), "size": len(raw)}
    return replace(image, root=root, blobs=image.blobs | {digest_of(raw): raw})


def nested(image: BuiltImage, depth: int) -> BuiltImage:
    """Indexes in indexes."""
    for _ in range(depth):
        image = build_index([image])
    return image


def circular(image: BuiltImage) -> BuiltImage:
    """An index that claims to name itself, which no digest allows."""
    claimed = descriptor(OCI_INDEX, b"whatever")
    raw = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [claimed]})
    root = {**claimed, "size": len(raw)}
    return replace(image, root=root, blobs={str(claimed["digest"]): raw})
