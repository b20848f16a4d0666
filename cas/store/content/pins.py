"""Pins of blobs, let go by whoever knows what they were for."""

__all__ = ["UNPINNED", "let_go"]

from collections.abc import Container, Mapping
from types import MappingProxyType

from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, PIN_OWNER, PIN_REASON
from cas.store.backing import Backing
from cas.store.locking import Locks

UNPINNED: Mapping[str, str | None] = MappingProxyType(
    {GC_ROOT: None, PIN_OWNER: None, PIN_REASON: None}
)
"""The change of labels that drops a pin."""


def let_go(backing: Backing, digest: Digest, reasons: Container[str]) -> bool:
    """Drop a blob's pin if it is for one of these reasons, and leave everybody else's alone.

    Nobody pins the blob for another reason between the look and the change: pins are set under the
    blob's lock.

    Returns:
        Whether it was.

    Raises:
        BlobNotFoundError: There is no such blob.
    """
    with Locks(backing.layout).blob(digest):
        if backing.content.info(digest).labels.get(PIN_REASON) not in reasons:
            return False
        backing.content.update_labels(digest, UNPINNED)
        return True
