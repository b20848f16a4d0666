"""The way in that works everywhere: bytes over containerd's content service.

This process hashes while it sends and compares before the commit; containerd hashes too and
compares at the commit. A write that a killed process left goes on where it stopped, if what
containerd holds is what the source begins with.
"""

__all__ = ["SmallBlob", "StreamedBlob", "Streaming"]

import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from cas.errors import CasError, DaemonError
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES, WRITE_MESSAGE_BYTES
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.hashing import BackgroundHash
from cas.store.content.intake import Intake, Way
from cas.store.content.sources import Reader
from cas.store.ports import BlobWriter, Writer
from cas.store.space import Reservation, Space

_log = logging.getLogger(__name__)


class Streaming:
    """Streams blobs into one store; may be shared by threads.

    Args:
        backing: The store.
        files: Its blobs directory.
    """

    def __init__(self, backing: Backing, files: BlobFiles) -> None:
        self._content = backing.content
        self._files = files
        self._space = Space(backing)

    @contextmanager
    def receive(self, intake: Intake) -> Iterator["StreamedBlob"]:
        """Send the source to containerd, hash and verify it; nothing is committed.

        The digest's lock is held by the caller if the digest is expected. Leaving the context
        drops what was not published; only a killed process leaves its ingest.
        """
        with ExitStack() as stack:
            reservation = None
            if intake.total is not None:
                what = f"blob {intake.item}"
                reservation = stack.enter_context(self._space.reserve(intake.total, what))
            ref = _ref(intake)
            stack.callback(self._drop, ref)
            writer = stack.enter_context(
                self._content.open_writer(ref, intake.lease.id, total=intake.total)
            )
            digest = _send(writer, intake, reservation)
            intake.verify(digest, writer.offset)
            yield StreamedBlob(writer, self._files, intake, digest)

    def _drop(self, ref: str) -> None:
        # After a commit there is nothing to drop. What fails here goes with the lease.
        with suppress(CasError):
            self._content.abort(ref)

    def small(self, intake: Intake, data: bytes) -> "SmallBlob":
        """Hash and verify a blob that is in memory; nothing is sent."""
        digest = Digest.of(data)
        intake.account(len(data), len(data))
        intake.verify(digest, len(data))
        return SmallBlob(self._content, self._files, intake, data, digest)


class StreamedBlob:
    """Verified bytes that containerd holds; see :class:`cas.store.content.intake.Received`."""

    way = Way.STREAM

    def __init__(self, writer: Writer, files: BlobFiles, intake: Intake, digest: Digest) -> None:
        self._writer = writer
        self._files = files
        self._lease = intake.lease
        self.digest = digest
        self.size = writer.offset

    def publish(self, labels: Mapping[str, str]) -> bool:
        """Commit."""
        # containerd keeps a file that has the name already, and never looks into it.
        self._files.clear_impostor(self.digest, self.size)
        try:
            return self._writer.commit(self.size, self.digest, labels)
        except DaemonError:
            # Without its lease the ingest is collected, and the commit misses the file only.
            self._lease.pin_blob(self.digest)
            raise


class SmallBlob:
    """A verified blob in memory; see :class:`cas.store.content.intake.Received`."""

    way = Way.STREAM

    def __init__(
        self, content: BlobWriter, files: BlobFiles, intake: Intake, data: bytes, digest: Digest
    ) -> None:
        self._content = content
        self._files = files
        self._intake = intake
        self._data = data
        self.digest = digest
        self.size = len(data)

    def publish(self, labels: Mapping[str, str]) -> bool:
        """Send and commit in one message."""
        self._files.clear_impostor(self.digest, self.size)
        ref = f"cas-put-{secrets.token_hex(8)}"
        return self._content.put(ref, self._intake.lease.id, self._data, self.digest, labels)


def _ref(intake: Intake) -> str:
    if intake.expected is not None and intake.source.repeatable:
        return f"cas-ingest-{intake.expected.hex}"
    return f"cas-ingest-{secrets.token_hex(8)}"


def _send(writer: Writer, intake: Intake, reservation: Reservation | None) -> Digest:
    with BackgroundHash() as running:
        if writer.offset:
            if _resume(writer, intake, running, reservation):
                return running.digest()
            _log.info("what containerd holds is not usable, beginning again item=%s", intake.item)
            writer.restart()
            running.restart()
        with intake.source.open() as reader:
            _send_rest(writer, reader, intake, running, reservation)
        return running.digest()


def _resume(
    writer: Writer, intake: Intake, running: BackgroundHash, reservation: Reservation | None
) -> bool:
    """Hash what containerd has and send the rest; False if it has something else."""
    with intake.source.open() as reader:
        position = 0
        while position < writer.offset:
            chunk = reader.read(min(CHUNK_BYTES, writer.offset - position))
            if not chunk:
                return False
            running.update(chunk)
            position += len(chunk)
            intake.account(position, len(chunk))
        if writer.digest != running.digest():
            return False
        _send_rest(writer, reader, intake, running, reservation)
    return True


def _send_rest(
    writer: Writer,
    reader: Reader,
    intake: Intake,
    running: BackgroundHash,
    reservation: Reservation | None,
) -> None:
    while chunk := reader.read(WRITE_MESSAGE_BYTES):
        running.update(chunk)
        intake.account(writer.offset + len(chunk), len(chunk))
        writer.write(chunk)
        if reservation is not None:
            reservation.consume(len(chunk))
