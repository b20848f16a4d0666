"""What to make of a blob that the store already has a record of.

A record alone proves nothing: containerd keeps it when the file is lost, and then answers
"exists" to whoever would bring the bytes again.
"""

__all__ = ["Existing", "ExistingBlobs"]

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from cas.errors import BlobNotFoundError, SizeMismatchError
from cas.model.digest import Digest
from cas.model.labels import (
    GC_REF_CONTENT,
    GC_REF_SNAPSHOT,
    GC_ROOT,
    MEDIA_TYPE,
    PIN_OWNER,
    PIN_REASON,
    PINNED_BY_MOVE,
    PINNED_BY_SENDING,
)
from cas.model.records import BlobInfo
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.leasing import Lease

_log = logging.getLogger(__name__)

_PIN = frozenset({GC_ROOT, PIN_OWNER, PIN_REASON})
_KEPT = frozenset({MEDIA_TYPE}) | _PIN
_PASSING = frozenset({PINNED_BY_MOVE, PINNED_BY_SENDING})
"""Labels that another ingest of the same blob does not change."""


@dataclass(frozen=True, slots=True)
class Existing:
    """A record, held by the lease of whoever asked.

    Args:
        info: The record.
        whole: Whether its file lies there with its size; True also when that cannot be seen.
    """

    info: BlobInfo
    whole: bool


class ExistingBlobs:
    """Looks at the records of one store.

    Args:
        backing: The store.
        files: Its blobs directory.
    """

    def __init__(self, backing: Backing, files: BlobFiles) -> None:
        self._content = backing.content
        self._files = files

    def find(self, digest: Digest, size: int | None, lease: Lease) -> Existing | None:
        """Find a blob and pin it; None if there is none. What is found stays.

        Raises:
            SizeMismatchError: It has another size than ``size``.
        """
        try:
            self._content.info(digest)
            lease.pin_blob(digest)
            # Again: between the first look and the pin it may have been collected.
            info = self._content.info(digest)
        except BlobNotFoundError:
            return None
        if size not in (None, info.size):
            raise SizeMismatchError(
                f"blob {digest} has {info.size} bytes, expected {size}",
                digest=digest,
                expected=size,
                actual=info.size,
            )
        return Existing(info, self._files.lies_there(digest, info.size) is not False)

    def complete(self, info: BlobInfo, labels: Mapping[str, str]) -> None:
        """Add the labels that are missing; media type, pin and its reason stay as they are.

        But a pin that only waits for an image gives way to one that stays.

        A pin that is asked for again counts as used now, so that a prune that was planned before
        leaves it.
        """
        passing = info.labels.get(PIN_REASON) in _PASSING and labels.get(PIN_REASON) not in _PASSING
        kept = _KEPT - _PIN if passing and labels.get(GC_ROOT) else _KEPT
        missing = {
            key: value
            for key, value in labels.items()
            if info.labels.get(key) != value and not (key in kept and info.labels.get(key))
        }
        if not missing and labels.get(GC_ROOT):
            # The value stays; that it is written makes the record's time of change the present.
            missing = {GC_ROOT: info.labels[GC_ROOT]}
        if missing:
            self._content.update_labels(info.digest, {**missing})

    def remove_broken(self, info: BlobInfo, lease: Lease) -> dict[str, str]:
        """Remove a record whose file is lost, to make room for a new one.

        What the record refers to is pinned first, since it may hold it alone.

        Returns:
            Its labels, for the new record.
        """
        for key, value in info.labels.items():
            if key.startswith(GC_REF_CONTENT):
                lease.pin_blob(Digest.parse(value))
            elif key.startswith(GC_REF_SNAPSHOT):
                lease.pin_snapshot(value)
        _log.warning("record of a lost blob replaced digest=%s", info.digest)
        # Set aside while the record protects it: a collection would destroy what is left of it.
        self._files.clear_impostor(info.digest, info.size)
        self._content.delete(info.digest)
        lease.pin_blob(info.digest)
        return dict(info.labels)
