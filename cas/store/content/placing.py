"""Gives verified files their names among the blobs and has containerd register them.

The last step of :mod:`cas.store.content.seed`. A collection may remove the file between link and
commit; then it is linked again, from another name that is kept until the commit: one in the staging
directory, or the one that a file had before it was taken over.
"""

__all__ = ["Changed", "NotSeen", "Placing", "StagedBlob", "TakenBlob", "new_ref"]

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cas.errors import DaemonError, StorageError
from cas.fsops.durable import publish, remove_file
from cas.fsops.inode import ExclusiveInode, StagedInode
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.hashing import digest_of
from cas.store.content.intake import Intake, Way

_COLLECTED_ATTEMPTS = 100
"""How often a collection may snatch the linked file away; each costs one link and two calls."""
_UNSEEN_ATTEMPTS = 2
"""How often containerd may not see a file that is still there."""


class NotSeen(Exception):  # noqa: N818 - not an error: the other way is taken
    """containerd does not look where this process links; never leaves the store."""


class Changed(Exception):  # noqa: N818 - not an error: the file is copied
    """Somebody touched a file while it was taken over; never leaves the store."""


class _Linkable(Protocol):
    """A sealed inode."""

    def fileno(self) -> int: ...

    def link(self, target: Path) -> bool: ...


class Placing:
    """Gives a sealed inode its place among the blobs; the lock of its digest is held."""

    def __init__(
        self, backing: Backing, files: BlobFiles, intake: Intake, digest: Digest, size: int
    ) -> None:
        if backing.blobs_directory is None:
            raise NotSeen("the blobs directory is out of reach")
        self._content = backing.content
        self._files = files
        self._intake = intake
        self.digest = digest
        self.size = size
        self.target = backing.blobs_directory / digest.hex
        self.keep = backing.layout.staged(digest)

    def place(self, inode: _Linkable, labels: Mapping[str, str]) -> None:
        """Link and register, again and again if collections interfere."""
        unseen = 0
        for _ in range(_COLLECTED_ATTEMPTS):
            self._intake.cancel.check()
            if not self._link(inode):
                continue
            self._files.sync()
            lease = self._intake.lease.id
            if self._content.adopt(new_ref(), lease, self.digest, self.size, labels):
                return
            unseen += self.target.exists()
            if unseen >= _UNSEEN_ATTEMPTS:
                if _is_same(inode.fileno(), self.target):
                    remove_file(self.target)
                raise NotSeen(f"containerd does not see files in {str(self.target.parent)!r}")
        raise DaemonError(
            f"cannot register blob {self.digest}: {_COLLECTED_ATTEMPTS} collections removed its "
            "file before containerd took it; try again",
            digest=self.digest,
        )

    def _link(self, inode: _Linkable) -> bool:
        """Whether a right file has the name now; what is wrong there makes room first."""
        try:
            if inode.link(self.target) or _is_same(inode.fileno(), self.target):
                return True
        except StorageError as error:
            if error.details.get("errno") == errno.errorcode[errno.EXDEV]:
                raise NotSeen(f"{str(self.target.parent)!r} is behind another mount") from error
            raise
        return self._files.clear_impostor(self.digest, self.size) is not None


class StagedBlob:
    """A verified file of ours; see :class:`cas.store.content.intake.Received`."""

    way = Way.SEED

    def __init__(self, placing: Placing, inode: StagedInode) -> None:
        self._placing = placing
        self._inode = inode
        self.digest = placing.digest
        self.size = placing.size

    def publish(self, labels: Mapping[str, str]) -> bool:
        """Place it; a name in the staging directory keeps it alive meanwhile."""
        keep = self._placing.keep
        if not self._inode.link(keep) and not _is_same(self._inode.fileno(), keep):
            remove_file(keep, sync=False)  # left by a killed ingest of the digest
            self._inode.link(keep)
        try:
            self._placing.place(self._inode, labels)
        finally:
            remove_file(keep, sync=False)
        return True

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in chunks of at most 1 MiB."""
        return self._inode.chunks()


class TakenBlob:
    """A verified file that was somebody else's; see :class:`cas.store.content.intake.Received`."""

    way = Way.SEED

    def __init__(self, placing: Placing, taken: ExclusiveInode) -> None:
        self._placing = placing
        self._taken = taken
        self._removed = False
        self.digest = placing.digest
        self.size = placing.size

    def publish(self, labels: Mapping[str, str]) -> bool:
        """Place it, and remove the name that it had; that name keeps it alive meanwhile."""
        if not self._taken.unchanged():
            raise Changed("the file was opened for writing while it was taken over")
        self._placing.place(self._taken, labels)
        self.remove_source()
        # Whoever opened the old name for writing waits for our lease to end, and would then
        # write into the blob.
        if self._taken.has_waiting_writer():
            self._replace_by_copy()
        return True

    def remove_source(self) -> bool:
        """Remove the name it had, if that still is the file that was verified. Idempotent."""
        if not self._removed:
            self._removed = self._taken.unchanged() and self._taken.remove_source()
        return self._removed

    def _replace_by_copy(self) -> None:
        target, keep = self._placing.target, self._placing.keep
        with StagedInode.anonymous(keep.parent) as copy:
            for chunk in self._taken.chunks():
                copy.write(chunk)
            digest, _ = digest_of(copy.chunks())
            if digest != self.digest:
                raise StorageError(
                    f"the file of blob {self.digest} was changed while it was taken over; run "
                    "`cas check --fix`",
                    digest=self.digest,
                )
            copy.seal()
            remove_file(keep, sync=False)
            copy.link(keep)
            publish(keep, target, replace=True)


def _is_same(descriptor: int, path: Path) -> bool:
    with translated("inspect", path):
        try:
            return os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            return False


def new_ref() -> str:
    """Give a fresh name for an empty commit."""
    return f"cas-seed-{secrets.token_hex(8)}"
