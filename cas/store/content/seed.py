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

__all__ = ["Seeding"]

import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cas.errors import IntegrityError
from cas.fsops.beneath import reached
from cas.fsops.durable import make_directory, remove_file
from cas.fsops.inode import ExclusiveInode, StagedInode
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.model.progress import NO_PROGRESS
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.hashing import BackgroundHash, digest_of
from cas.store.content.intake import Intake
from cas.store.content.placing import Changed, NotSeen, Placing, StagedBlob, TakenBlob, new_ref
from cas.store.content.sources import BytesSource, DescriptorReader, FileSource
from cas.store.leasing import Lease
from cas.store.space import Reservation, Space

_log = logging.getLogger(__name__)

_STAGE_MODE = 0o700
_SELF_TEST_BYTES = 32
_WRITEBACK_BYTES = 16 * CHUNK_BYTES
"""Given to the device while hashing goes on, so that the last sync has little left to do."""


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
    def receive(self, intake: Intake) -> Iterator[StagedBlob]:
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
    def take(self, intake: Intake, source: FileSource) -> Iterator[TakenBlob | None]:
        """Take a file over, hash and verify it in place, and make it final.

        None if it cannot be taken: the caller copies. Leaving the context without having
        published gives owner and mode back.

        Raises:
            Changed: Somebody opened it for writing meanwhile.
        """
        blobs = self._backing.blobs_directory
        with ExitStack() as stack:
            path = stack.enter_context(reached(source.path, source.beneath))
            taken = None if blobs is None else ExclusiveInode.take(path, blobs)
            if taken is None:
                yield None
                return
            stack.enter_context(taken)
            digest, size = _hash_taken(taken, intake)
            intake.verify(digest, size)
            stack.callback(taken.restore)
            if not taken.seal():
                raise Changed(f"{source.name} changed while it was read")
            yield TakenBlob(self._placing(intake, digest, size), taken)

    def self_test(self, lease: Lease) -> str | None:
        """Seed a few random bytes, read them back through containerd, and remove them.

        Returns:
            Why blobs cannot be seeded; None if that worked.
        """
        obstacle = self.obstacle()
        if obstacle is not None:
            return obstacle
        data = secrets.token_bytes(_SELF_TEST_BYTES)
        source = BytesSource(data, "self-test")
        intake = Intake(source, lease, None, None, len(data), Cancellation(), NO_PROGRESS)
        try:
            with self.receive(intake) as staged:
                staged.publish({})
        except NotSeen as reason:
            self.refuse(str(reason))
            return self._refused
        content = self._backing.content
        if content.read_all(staged.digest, limit=len(data)) != data:
            self.refuse("containerd reads other bytes than were seeded")
        content.delete(staged.digest)
        return self._refused

    def adopt_present(
        self, digest: Digest, intake: Intake, labels: Mapping[str, str]
    ) -> int | None:
        """Register a file that lies in the blobs directory already, if it is right.

        Returns:
            Its size; None if there is none, it was wrong, or containerd does not see it.
        """
        self._drop_staged(digest, only_linked=True)
        self._drop_handed_over(digest)
        size = self._files.clear_impostor(digest, intake.size)
        if size is None:
            return None
        self._files.sync()
        adopted = self._backing.content.adopt(new_ref(), intake.lease.id, digest, size, labels)
        return size if adopted else None

    def drop_staged(self, digest: Digest) -> None:
        """Remove what a killed ingest left of a blob that exists; the digest's lock is held.

        It may be a second name of the blob's file, through which the file could be changed.
        """
        self._drop_staged(digest, only_linked=False)

    def _drop_staged(self, digest: Digest, *, only_linked: bool) -> None:
        path = self._backing.layout.staged(digest)
        with translated("inspect", path):
            try:
                links = path.lstat().st_nlink
            except FileNotFoundError:
                return
        if links > 1 or not only_linked:
            remove_file(path, sync=False)

    def _drop_handed_over(self, digest: Digest) -> None:
        """Remove the verifier's name of a blob's file, which a killed hand-over left."""
        if self._backing.blobs_directory is None:
            return
        blob = self._backing.blobs_directory / digest.hex
        verified = self._backing.layout.verified / digest.hex
        with translated("inspect", verified):
            try:
                is_one_file = os.path.samestat(verified.lstat(), blob.lstat())
            except FileNotFoundError:
                return
        if is_one_file:
            remove_file(verified, sync=False)

    def _placing(self, intake: Intake, digest: Digest, size: int) -> Placing:
        return Placing(self._backing, self._files, intake, digest, size)

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
