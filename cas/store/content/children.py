"""What the bytes of a blob refer to; only reads."""

__all__ = ["blob_children"]

import json

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.documents import children, parse_document
from cas.model.labels import MEDIA_TYPE
from cas.model.media_types import OCI_INDEX, OCI_MANIFEST, is_index, is_manifest
from cas.store.backing import Backing
from cas.store.image.resolution import read_document

_MARKS = {OCI_INDEX: {"manifests"}, OCI_MANIFEST: {"config", "layers"}}
"""Keys by which a document that nobody gave a type is known."""


def blob_children(backing: Backing, digest: Digest) -> list[Descriptor]:
    """List what a manifest or index names, config first, as often as it is named.

    A blob whose media type is not known is a document if its bytes are one.

    Returns:
        Nothing for any other blob.

    Raises:
        BlobNotFoundError: There is no such blob.
        CorruptBlobError: Its bytes are not those of the digest.
        MalformedDocumentError: It is a manifest or an index that is not valid.
        LimitExceededError: It is larger than a document may be.
    """
    info = backing.content.info(digest)
    media_type = info.labels.get(MEDIA_TYPE) or _guess(backing, digest, info.size)
    if not (is_manifest(media_type) or is_index(media_type)):
        return []
    descriptor = Descriptor(media_type, digest, info.size)
    raw = read_document(backing.content, descriptor, backing.limits)
    return [child.descriptor for child in children(parse_document(raw, descriptor, backing.limits))]


def _guess(backing: Backing, digest: Digest, size: int) -> str:
    """Give the media type that a document says or shows; empty if it is none."""
    limit = backing.limits.document_bytes
    if not 0 < size <= limit:
        return ""
    raw = backing.content.read_all(digest, limit=limit)
    if not raw.lstrip().startswith(b"{"):
        return ""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return ""
    stated = document.get("mediaType")
    if isinstance(stated, str):
        return stated
    return next((kind for kind, keys in _MARKS.items() if keys <= document.keys()), "")
