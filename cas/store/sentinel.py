"""Tells an emptied containerd database from a new store, so that nothing is deleted by mistake.

containerd that finds its database missing or empty starts with a new one and says nothing. All
blobs and snapshots on disk are orphans then, and the first collection after any deletion removes
them for good. The sentinel is what a new database cannot have: a label on the namespace and a
small rooted blob. Where the store's root is within reach, a file beside the blobs remembers that
the sentinel was once made.
"""

__all__ = ["Sentinel", "SentinelState"]

import json
import logging
import os
import secrets
from enum import StrEnum
from pathlib import Path

from cas.errors import BlobNotFoundError, StoreMetadataLostError
from cas.fsops.durable import make_directory, write_file
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, PIN_OWNER, PIN_REASON, STORE_ID
from cas.store.backing import Backing
from cas.store.leasing import Lease, Leasing

_log = logging.getLogger(__name__)

_DIRECTORY_MODE = 0o700
_PINNED_BY = {PIN_OWNER: "cas", PIN_REASON: "sentinel of the store"}


class SentinelState(StrEnum):
    """What the sentinel says about containerd's database."""

    PRESENT = "present"
    """The database is the one that this store was made with."""
    NEW = "new"
    """There is no store yet."""
    LOST = "lost"
    """There is a store, but the database does not know it."""


class Sentinel:
    """The sentinel of one namespace.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._leasing = Leasing(backing)

    def state(self) -> SentinelState:
        """Look; one call to containerd where all is well."""
        if self._store_id() is not None:
            return SentinelState.PRESENT
        if self._marker().exists() or (self._is_database_new() and self._has_remains()):
            return SentinelState.LOST
        return SentinelState.NEW

    def require(self) -> None:
        """Return if the database is the store's; call it before deleting anything.

        Also the end of a failed write deletes, since containerd collects what its lease held. A
        new store passes: there is nothing to lose.

        Raises:
            StoreMetadataLostError: The database was emptied.
        """
        if self.state() is SentinelState.LOST:
            raise StoreMetadataLostError(
                f"containerd's database knows nothing of the store in namespace "
                f"{self._backing.namespace!r} although its files are there; nothing was deleted; "
                "run `cas check --fix` to rebuild it from the blobs on disk",
                namespace=self._backing.namespace,
            )

    def ensure(self) -> SentinelState:
        """Make the sentinel of a new store and complete one that lacks a part. Idempotent.

        A store whose metadata is lost is left alone: reading goes on, see :meth:`require`.

        Returns:
            What was found.
        """
        found = self.state()
        if found is SentinelState.LOST:
            _log.warning("store metadata is lost namespace=%s", self._backing.namespace)
            return found
        if found is SentinelState.NEW or not self._is_complete():
            with self._leasing.hold("sentinel") as lease:
                self.establish(lease)
        return found

    def establish(self, lease: Lease) -> None:
        """Make the sentinel whatever the state; for the rebuild of a store. Idempotent."""
        backing = self._backing
        store_id = self._store_id() or secrets.token_hex(16)
        document = _document(store_id, backing.namespace)
        digest = Digest.of(document)
        rooted = {GC_ROOT: backing.clock().isoformat(), STORE_ID: store_id, **_PINNED_BY}
        backing.namespaces.set_labels(backing.namespace, {STORE_ID: store_id})
        if not backing.content.put(
            f"cas-sentinel-{digest.hex}", lease.id, document, digest, rooted
        ):
            lease.pin_blob(digest)
            backing.content.update_labels(digest, {**rooted})
        # Last: a marker without a sentinel would say that a new store is lost.
        self._write_marker(document)

    def _store_id(self) -> str | None:
        label = self._backing.namespaces.labels(self._backing.namespace).get(STORE_ID)
        if label:
            return label
        # The label alone may be lost to a deletion of the namespace's labels.
        for blob in self._backing.content.iter_blobs([f'labels."{STORE_ID}"']):
            return blob.labels[STORE_ID]
        return None

    def _is_complete(self) -> bool:
        backing = self._backing
        label = backing.namespaces.labels(backing.namespace).get(STORE_ID)
        if not label:
            return False
        try:
            blob = backing.content.info(Digest.of(_document(label, backing.namespace)))
        except BlobNotFoundError:
            return False
        rooted = bool(blob.labels.get(GC_ROOT))
        return rooted and (self._marker().exists() or not self._reaches_root())

    def _marker(self) -> Path:
        return self._backing.layout.store_marker(self._backing.namespace)

    def _reaches_root(self) -> bool:
        blobs = self._backing.blobs_directory
        return blobs is not None and blobs.is_relative_to(self._backing.layout.case)

    def _write_marker(self, document: bytes) -> None:
        if self._reaches_root():
            marker = self._marker()
            make_directory(marker.parent, mode=_DIRECTORY_MODE, parents=True)
            write_file(marker, document)

    def _is_database_new(self) -> bool:
        """No namespace is known, ours or another's."""
        return not any(True for _ in self._backing.namespaces.iter_namespaces())

    def _has_remains(self) -> bool:
        """Volumes or blobs prove that there was a store."""
        return any(True for _ in self._backing.volumes()) or self._has_blob_files()

    def _has_blob_files(self) -> bool:
        blobs = self._backing.blobs_directory
        if blobs is None or not self._reaches_root() or not blobs.is_dir():
            return False
        with translated("list", blobs), os.scandir(blobs) as entries:
            return any(True for _ in entries)


def _document(store_id: str, namespace: str) -> bytes:
    text = json.dumps({"namespace": namespace, "storeId": store_id}, indent=2, sort_keys=True)
    return text.encode() + b"\n"
