"""The files behind blobs, where containerd's blobs directory is within reach.

containerd owns the directory. This module looks at files in it, sets wrong ones aside into the
store's quarantine and syncs the directory; :mod:`cas.store.content.seed` alone adds files.
"""

__all__ = ["BlobFiles"]

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from cas.fsops.durable import make_directory, rename_aside, sync_directory
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.store.backing import Backing
from cas.store.content.hashing import digest_of

_log = logging.getLogger(__name__)

_WRITABLE_BITS = 0o222
_DIRECTORY_MODE = 0o700


class BlobFiles:
    """The blobs directory of one store, or the knowledge that it is out of reach.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._directory = backing.blobs_directory
        self._layout = backing.layout

    def lies_there(self, digest: Digest, size: int) -> bool | None:
        """Whether a regular file of that size has the digest's name; None if out of reach."""
        if self._directory is None:
            return None
        status = self._status(self._directory / digest.hex)
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == size

    def read(self, digest: Digest, offset: int = 0) -> Iterator[bytes] | None:
        """Stream the file of that name from ``offset``, unverified; None if out of reach or absent.

        The file is opened at once, so that a removal meanwhile does no harm.
        """
        descriptor = self.open(digest)
        if self._directory is None or descriptor is None:
            return None
        return _read_and_close(descriptor, self._directory / digest.hex, offset)

    def open(self, digest: Digest) -> int | None:
        """Open the file of that name, unverified; None if out of reach or absent.

        The caller closes the descriptor, and may read until then whatever becomes of the name.
        """
        if self._directory is None:
            return None
        path = self._directory / digest.hex
        with translated("open", path):
            try:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return None

    def clear_impostor(self, digest: Digest, size: int | None = None) -> int | None:
        """See to it that whatever has the digest's name has its bytes, and is safe from change.

        Reads the whole file. What is wrong is moved to the quarantine: other bytes, not a regular
        file, writable, not root's, or with a second name through which it could be changed.

        Args:
            digest: The name.
            size: Bytes it must have, if known.

        Returns:
            The size of the file that may stay; None if there is none now, or out of reach.
        """
        if self._directory is None:
            return None
        path = self._directory / digest.hex
        if self._status(path) is None:
            return None
        found = _verified_size(path, digest)
        if found is not None and size in (None, found):
            return found
        self.set_aside(digest)
        return None

    def set_aside(self, digest: Digest) -> Path | None:
        """Move the file of that name to the quarantine; None if there was none.

        Records of it stay; removing them is the caller's.
        """
        if self._directory is None:
            return None
        quarantine = self._layout.quarantine
        make_directory(quarantine, mode=_DIRECTORY_MODE, parents=True)
        aside = quarantine / f"{digest.hex}.{secrets.token_hex(4)}"
        if not rename_aside(self._directory / digest.hex, aside):
            return None
        _log.warning("wrong file of a blob set aside digest=%s path=%s", digest, aside)
        return aside

    def sync(self) -> None:
        """Make the names in the blobs directory durable; no effect when it is out of reach.

        Out of reach containerd alone can do it, which it does from 2.2 on.
        """
        if self._directory is not None and self._directory.is_dir():
            sync_directory(self._directory)

    def _status(self, path: Path) -> os.stat_result | None:
        with translated("inspect", path):
            try:
                return path.lstat()
            except FileNotFoundError:
                return None


def _read_and_close(descriptor: int, path: Path, offset: int) -> Iterator[bytes]:
    try:
        with translated("read", path):
            os.lseek(descriptor, offset, os.SEEK_SET)
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk
    finally:
        os.close(descriptor)


def _verified_size(path: Path, digest: Digest) -> int | None:
    """The size of a file that is what its name says and cannot be changed; else None."""
    with translated("verify", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # A symbolic link, a socket, or gone by now.
            return None
        try:
            status = os.fstat(descriptor)
            if not _is_safe(status):
                return None
            found, size = digest_of(iter(lambda: os.read(descriptor, CHUNK_BYTES), b""))
        finally:
            os.close(descriptor)
    return size if found == digest else None


def _is_safe(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == 0
        and status.st_nlink == 1
        and not status.st_mode & _WRITABLE_BITS
    )
