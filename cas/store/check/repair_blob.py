"""Puts one bad blob right: read-only again if its bytes are good, else out of the way."""

__all__ = ["BlobRepair", "make_safe"]

import logging
import os
from pathlib import Path

from cas.errors import BlobNotFoundError, CorruptBlobError, StorageError
from cas.fsops.translation import translated
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.progress import Progress
from cas.model.records import BlobInfo
from cas.store.account.files import blob_path
from cas.store.backing import Backing
from cas.store.check.blobs import blob_trouble, current_blob
from cas.store.check.data import hash_blob
from cas.store.check.findings import Problem
from cas.store.content.blob_files import BlobFiles
from cas.store.locking import Locks

_log = logging.getLogger(__name__)

_MODE = 0o444
_LOCK_SECONDS = 10.0


class BlobRepair:
    """Repairs blobs of one store.

    Args:
        backing: The store.
        locks: Its locks.
    """

    def __init__(self, backing: Backing, locks: Locks) -> None:
        self._backing = backing
        self._locks = locks
        self._files = BlobFiles(backing)

    def fix(self, digest: Digest, cancel: Cancellation, progress: Progress) -> tuple[bool, str]:
        """Look at the blob again and put it right.

        A file with other bytes than its name says is moved to the quarantine and the record is
        deleted, so that an import brings the blob again. Nothing else is touched: names and
        volumes that need it stay.

        Returns:
            Whether nothing is wrong any more with what is listed, and what was done.

        Raises:
            LockTimeoutError: Somebody is just bringing the blob in.
            InterruptedOperationError: ``cancel`` was set.
        """
        with self._locks.blob(digest, timeout_seconds=_LOCK_SECONDS):
            blob = current_blob(self._backing, digest)
            if blob is None:
                return True, "removed by somebody meanwhile"
            if self._is_good(blob, cancel, progress):
                return True, self._make_safe(blob)
            # File first: were the record deleted first and we killed, the wrong file would be
            # taken for the blob by the next commit of its digest.
            aside = self._files.set_aside(digest)
            self._backing.content.delete(digest)
            _log.warning("bad blob removed digest=%s aside=%s", digest, aside)
            place = f", its bytes are in {str(aside)!r}" if aside else ""
            return True, f"removed{place}; import or ingest it again"

    def _is_good(self, blob: BlobInfo, cancel: Cancellation, progress: Progress) -> bool:
        try:
            found = hash_blob(self._backing, blob.digest, cancel, progress)
        except (BlobNotFoundError, CorruptBlobError, StorageError):
            return False
        return found == (blob.digest, blob.size)

    def _make_safe(self, blob: BlobInfo) -> str:
        directory = self._backing.blobs_directory
        trouble = None if directory is None else blob_trouble(directory, blob.digest, blob.size)
        if directory is None or trouble is None or trouble[0] is not Problem.BLOB_FILE_UNSAFE:
            return "its bytes are right"
        make_safe(blob_path(directory, blob.digest))
        return "its bytes are right; the file is root's and read-only again"


def make_safe(path: Path) -> None:
    """Make a blob's file root's and read-only; the caller has hashed it.

    Raises:
        StorageError: It is no regular file, or a system call failed.
    """
    with translated("protect", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, _MODE)
        finally:
            os.close(descriptor)
