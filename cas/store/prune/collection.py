"""Making containerd sweep files, not only records.

A collection deletes files only if a record of their kind was deleted since containerd began, and
forgets that if deleting fails, as on a full disk; files that were left behind would stay for ever.
So a throw-away blob and a throw-away snapshot are made and deleted first.
"""

__all__ = ["collect_files"]

import logging
import secrets

from cas.errors import NoSpaceError
from cas.model.digest import Digest
from cas.store.backing import Backing
from cas.store.leasing import Lease, Leasing
from cas.store.sentinel import Sentinel

_log = logging.getLogger(__name__)


def collect_files(backing: Backing) -> None:
    """Run one collection that also removes files of which there is no record; waits for it.

    containerd answers success even when removing files failed: look afterwards.

    Raises:
        StoreMetadataLostError: containerd's database was emptied; nothing is deleted then.
        UnavailableError: containerd does not answer.
    """
    Sentinel(backing).require()
    with Leasing(backing).hold("collect") as lease:
        try:
            backing.snapshots.request_sweep(lease.id)
            _request_sweep_of_blobs(backing, lease)
        except NoSpaceError:
            # What is collected now makes room; files without record wait for the next time.
            _log.info("no room to make containerd look for files without record")
    backing.leases.collect_garbage()


def _request_sweep_of_blobs(backing: Backing, lease: Lease) -> None:
    data = secrets.token_bytes(32)
    digest = Digest.of(data)
    backing.content.put(f"cas-collect-{digest.hex}", lease.id, data, digest, {})
    backing.content.delete(digest)
