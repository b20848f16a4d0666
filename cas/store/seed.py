"""The fast way in: bytes in a file of ours, linked into containerd's blobs directory.

containerd hashes nothing that comes this way, so this module is the one that proves: every byte
is hashed in this process, and the inode that is linked is the one that was hashed. It is either
one that only we ever had open, or somebody else's that is proven to have no writer and no other
name; it is root's, read-only and synced before it gets its name. containerd then registers it by
an empty commit, which relies on its documented content sharing.

A collection may remove the file between link and commit; then it is linked again, from a name in
the staging directory that is kept until the commit. What a crash leaves there is resumed by the
next ingest of the digest; a linked file that was not registered is harmless, since it has the
bytes of its name: it is picked up by the next ingest or removed by a collection.
"""

__all__ = ["Changed", "NotSeen", "Seeding", "StagedBlob", "TakenBlob"]

import errno
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from cas.errors import DaemonError, IntegrityError, StorageError
from cas.fsops.descriptors import holds_lease
from cas.fsops.durable import make_directory, publish, remove_file
from cas.fsops.inode import ExclusiveInode, StagedInode
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.store.backing import Backing
from cas.store.blob_files import BlobFiles
from cas.store.hashing import BackgroundHash, digest_of
from cas.store.intake import Intake, Way
from cas.store.sources import DescriptorReader
from cas.store.space import Reservation, Space

_log = logging.getLogger(__name__)

_STAGE_MODE = 0o700
_WRITEBACK_BYTES = 16 * CHUNK_BYTES
"""Given to the device while hashing goes on, so that the last sync has little left to do."""
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


class Seeding:
    """Seeds blobs into one store; may be shared by threads.

    Args:
        backing: The store.
        files: Its blobs directory.
    """

    def __init__(self, backing: Backing, files: BlobFiles) -> None:
        self._backing = backing
        self._files = files
        self._space = Space(backing)
        self._refused: str | None = None

    def obstacle(self) -> str | None:
        """Say why blobs cannot be seeded; None as far as can be told without trying."""
        if self._refused is not None:
            return self._refused
        blobs = self._backing.blobs_directory
        if blobs is None or not blobs.is_dir():
            return "containerd's blobs directory is not within reach of this process"
        stage = self._backing.layout.stage
        make_directory(stage, mode=_STAGE_MODE, parents=True)
        with translated("inspect", stage):
            if stage.stat().st_dev != blobs.stat().st_dev:
                return f"{str(stage)!r} and {str(blobs)!r} are on different file systems"
        return None

    def refuse(self, reason: str) -> None:
        """Remember that containerd does not take seeded files."""
        self._refused = reason
        _log.warning("blobs are streamed, not seeded reason=%s", reason)

    @contextmanager
    def receive(self, intake: Intake) -> Iterator["StagedBlob"]:
        """Copy the source into a file of ours, hash and verify it, and make it final.

        The digest's lock is held by the caller if the digest is expected. Leaving the context
        drops what was not published; only a killed process leaves its partial file.
        """
        with ExitStack() as stack:
            reservation = self._reserve(intake, stack)
            inode = stack.enter_context(self._open(intake))
            stack.callback(inode.discard)
            _allocate(inode, intake, reservation)
            digest = _copy_verified(inode, intake)
            inode.seal()
            yield StagedBlob(self._placing(intake, digest, inode.size), inode)

    @contextmanager
    def take(self, intake: Intake, path: Path) -> Iterator["TakenBlob | None"]:
        """Take the file ``path`` over, hash and verify it in place, and make it final.

        None if it cannot be taken: the caller copies. Leaving the context without having
        published gives owner and mode back.

        Raises:
            Changed: Somebody opened it for writing meanwhile.
        """
        blobs = self._backing.blobs_directory
        taken = None if blobs is None else ExclusiveInode.take(path, blobs)
        if taken is None:
            yield None
            return
        with taken, ExitStack() as stack:
            digest, size = _hash_taken(taken, intake)
            intake.verify(digest, size)
            stack.callback(taken.restore)
            if not taken.seal():
                raise Changed(f"{str(path)!r} changed while it was read")
            yield TakenBlob(self._placing(intake, digest, size), taken)

    def adopt_present(
        self, digest: Digest, intake: Intake, labels: Mapping[str, str]
    ) -> int | None:
        """Register a file that lies in the blobs directory already, if it is right.

        Returns:
            Its size; None if there is none, it was wrong, or containerd does not see it.
        """
        size = self._files.clear_impostor(digest, intake.size)
        if size is None:
            return None
        self._files.sync()
        adopted = self._backing.content.adopt(_new_ref(), intake.lease.id, digest, size, labels)
        return size if adopted else None

    def _placing(self, intake: Intake, digest: Digest, size: int) -> "_Placing":
        return _Placing(self._backing, self._files, intake, digest, size)

    def _reserve(self, intake: Intake, stack: ExitStack) -> Reservation | None:
        if intake.total is None:
            return None
        # What a killed ingest left is allocated already, often all of it.
        partial = None if intake.expected is None else self._backing.layout.staged(intake.expected)
        allocated = allocated_bytes(partial) if partial is not None and partial.exists() else 0
        needed = max(0, intake.total - allocated)
        return stack.enter_context(self._space.reserve(needed, f"blob {intake.item}"))

    def _open(self, intake: Intake) -> StagedInode:
        layout = self._backing.layout
        if intake.expected is not None and intake.source.repeatable:
            return StagedInode.open_partial(layout.staged(intake.expected))
        return StagedInode.anonymous(layout.stage)


class _Placing:
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
            if self._content.adopt(_new_ref(), lease, self.digest, self.size, labels):
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
            if inode.link(self.target):
                return True
        except StorageError as error:
            if error.details.get("errno") == errno.errorcode[errno.EXDEV]:
                raise NotSeen(f"{str(self.target.parent)!r} is behind another mount") from error
            raise
        return self._files.clear_impostor(self.digest, self.size) is not None


class StagedBlob:
    """A verified file of ours; see :class:`cas.store.intake.Received`."""

    way = Way.SEED

    def __init__(self, placing: _Placing, inode: StagedInode) -> None:
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
    """A verified file that was somebody else's; see :class:`cas.store.intake.Received`."""

    way = Way.SEED

    def __init__(self, placing: _Placing, taken: ExclusiveInode) -> None:
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
        if not holds_lease(self._taken.fileno()):
            self._replace_by_copy()
        return True

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in chunks of at most 1 MiB."""
        return self._taken.chunks()

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


def _allocate(inode: StagedInode, intake: Intake, reservation: Reservation | None) -> None:
    """Turn the promise of room into room, so that running out shows before the first byte."""
    if reservation is not None and intake.total is not None:
        inode.reserve(intake.total)
        reservation.consume(intake.total)


def _copy_verified(inode: StagedInode, intake: Intake) -> Digest:
    resumed = inode.offset > 0
    with BackgroundHash() as running:
        _copy(inode, intake, running)
        try:
            intake.verify(running.digest(), inode.size)
        except IntegrityError:
            if not resumed:
                raise
            # What a power cut left of the partial file may be zeros.
            _log.info("partial file is not usable, beginning again item=%s", intake.item)
            inode.restart()
            running.restart()
            _copy(inode, intake, running)
            intake.verify(running.digest(), inode.size)
        return running.digest()


def _copy(inode: StagedInode, intake: Intake, running: BackgroundHash) -> None:
    if intake.total is not None and inode.offset > intake.total:
        inode.restart()
    for chunk in inode.chunks():
        running.update(chunk)
        intake.account(inode.offset, len(chunk))
    with intake.source.open(inode.offset) as reader:
        if inode.offset == 0 and _clone(inode, reader):
            for chunk in inode.chunks():
                running.update(chunk)
                intake.account(inode.size, len(chunk))
            return
        started = inode.offset
        while chunk := reader.read(CHUNK_BYTES):
            running.update(chunk)
            intake.account(inode.offset + len(chunk), len(chunk))
            inode.write(chunk)
            if inode.offset - started >= _WRITEBACK_BYTES:
                inode.start_writeback(started, inode.offset - started)
                started = inode.offset


def _clone(inode: StagedInode, reader: object) -> bool:
    """Share the source's blocks where the file system can; what is hashed is our inode then."""
    return isinstance(reader, DescriptorReader) and inode.clone_from(reader.fileno())


def _hash_taken(taken: ExclusiveInode, intake: Intake) -> tuple[Digest, int]:
    def accounted() -> Iterator[bytes]:
        count = 0
        for chunk in taken.chunks():
            count += len(chunk)
            intake.account(count, len(chunk))
            yield chunk

    return digest_of(accounted())


def _is_same(descriptor: int, path: Path) -> bool:
    with translated("inspect", path):
        try:
            return os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            return False


def _new_ref() -> str:
    return f"cas-seed-{secrets.token_hex(8)}"
