"""Making containerd sweep files, not only records.

A collection deletes files of blobs only if a record was deleted since containerd began; files
that a crash left behind would stay for ever. So a throw-away blob is made and deleted first.
"""

__all__ = ["collect_files"]

import logging
import secrets

from cas.errors import NoSpaceError
from cas.model.digest import Digest
from cas.store.backing import Backing
from cas.store.leasing import Leasing
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
        data = secrets.token_bytes(32)
        digest = Digest.of(data)
        try:
            backing.content.put(f"cas-collect-{digest.hex}", lease.id, data, digest, {})
        except NoSpaceError:
            # What is collected now makes room; files without record wait for the next time.
            _log.info("no room to make containerd look for files without record")
        else:
            backing.content.delete(digest)
    backing.leases.collect_garbage()
