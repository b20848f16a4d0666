"""Brings blobs into the store, verified, once, by the better way; a use case of the store.

Invariants: nothing becomes visible before size and digest were compared in this process; a
digest is brought in by one caller at a time, later ones share the result; every blob is under the
caller's lease from its first byte; an error, a stop or Ctrl-C leaves nothing behind, and what a
killed process leaves is resumed.

Nothing is durable in its name before :meth:`Ingest.settle`; acknowledge after it.
"""

__all__ = ["Ingest", "Ingested", "Way"]

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cas.errors import (
    DaemonVersionError,
    LockTimeoutError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import MEDIA_TYPE
from cas.model.limits import SMALL_BLOB_BYTES
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import BlobInfo
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.existing import Existing, ExistingBlobs
from cas.store.content.hashing import holds
from cas.store.content.intake import Ingested, Intake, Received, Way
from cas.store.content.placing import Changed, NotSeen, StagedBlob, TakenBlob
from cas.store.content.seed import Seeding
from cas.store.content.sources import ChunkSource, FileSource, PrefixedSource, Reader, Source
from cas.store.content.stage_sweep import sweep_stage
from cas.store.content.stream import Streaming
from cas.store.leasing import Lease, Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel
from cas.store.space import Space

_log = logging.getLogger(__name__)

_ATTEMPTS = 4
_SEEDED_ABOVE_BYTES = 64 * 1024
"""Below, one message is faster with several workers (measured: 100 to 75 blobs of 4 KiB per
second); above, syncing the file outside containerd's transaction is (74 to 54 of 1 MiB)."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One call."""

    intake: Intake
    labels: Mapping[str, str]
    way: Way | None
    move: bool
    take: bool
    """Whether moving may take the inode over."""


class _OvertakenError(LockTimeoutError):
    """Containerd had the blob when it was to be stored, and had not when it was to be pinned."""


class Ingest:
    """Ingests blobs into one store; may be shared by threads.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._locks = Locks(backing.layout)
        self._files = BlobFiles(backing)
        self._seeding = Seeding(backing, self._files)
        self._streaming = Streaming(backing, self._files)
        self._existing = ExistingBlobs(backing, self._files)
        self._sentinel = Sentinel(backing)
        self._ready = False
        self._ready_guard = threading.Lock()

    def ingest(  # noqa: PLR0913 - independent options, all by keyword
        self,
        source: Source,
        lease: Lease,
        *,
        expected: Digest | None = None,
        size: int | None = None,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        move: bool = False,
        way: Way | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """See to it that the source's bytes are a blob of the store, held by ``lease``.

        A digest that is there already is success; the source is not even opened if the digest is
        expected. After an error nothing is visible and nothing is left. Idempotent; blocks while
        somebody else brings in the same digest.

        Args:
            source: The bytes.
            lease: Held until something refers to the blob.
            expected: Digest that they must have.
            size: Number that they must have.
            media_type: Remembered with the blob, if none is.
            labels: Stored with it in one transaction; missing ones are added to a blob that is
                there.
            move: Take the file over if possible, and remove its name when the blob is durable; a
                file that turns out to be something else stays.
            way: Seed or stream; None lets size and circumstances decide.
            cancel: Stops the work between two chunks.
            progress: Told of every chunk.

        Returns:
            Digest, size, and how it came in.

        Raises:
            DigestMismatchError: The bytes have another digest.
            SizeMismatchError: They have another number.
            LimitExceededError: They are more than a blob may have.
            SourceNotFoundError: There is no source, and no such blob either.
            NoSpaceError: There is too little room.
            InterruptedOperationError: ``cancel`` was set.
            LeaseNotFoundError: The lease vanished.
            LockTimeoutError: Others kept interfering.
            DaemonVersionError: ``way`` is seed, and that is not possible here.
            StoreMetadataLostError: containerd's database was emptied.
            UsageError: ``move`` is asked for something that is not a file.
        """
        if move and not isinstance(source, FileSource):
            raise UsageError(f"{source.name} is not a file and cannot be moved")
        if cancel is not None:
            cancel.check()
        self._prepare()
        intake = Intake(
            source=source,
            lease=lease,
            expected=expected,
            size=size,
            limit=self._backing.limits.blob_bytes,
            cancel=cancel or Cancellation(),
            progress=progress,
        )
        wanted = {**({MEDIA_TYPE: media_type} if media_type else {}), **(labels or {})}
        task = _Task(intake, wanted, way, move=move, take=move)
        for _ in range(_ATTEMPTS):
            try:
                return self._counted(self._ingest(task))
            except Changed as reason:
                _log.info("file is copied, not taken over reason=%s", reason)
                task = replace(task, take=False)
            except _OvertakenError:
                # A collection ran between containerd's answer and our pin; it is over by now.
                if not source.repeatable:
                    raise
                _log.info("blob is stored anew source=%s", source.name)
        return self._counted(self._ingest(task))

    def settle(self) -> None:
        """Make everything that was ingested durable by name; call it before acknowledging.

        Where the blobs directory is out of reach this is containerd's to do.
        """
        self._files.sync()

    def seeding_available(self) -> tuple[bool, str]:
        """Try whether large blobs can be seeded, by seeding some bytes and removing them.

        Not needed before ingesting: whatever stands against it is found then, too.

        Returns:
            Whether, and why or why not.
        """
        self._prepare()
        with Leasing(self._backing).hold("selftest") as lease:
            obstacle = self._seeding.self_test(lease)
        return obstacle is None, obstacle or "containerd took a seeded blob"

    def sweep(self) -> list[Path]:
        """Remove what killed ingests left on disk; part of recovery, after ``Leasing.reap``.

        A partial file is kept for the first recovery after the kill, so that the ingest can be
        resumed, and removed by the second. Promises of room to dead processes go at once, and
        ingests within containerd with their leases.

        Returns:
            What was removed.
        """
        Space(self._backing).sweep()
        return sweep_stage(self._backing.layout, self._locks)

    def _prepare(self) -> None:
        # A failed write ends in a collection, which empties a store whose metadata is lost.
        with self._ready_guard:
            if not self._ready:
                self._sentinel.ensure()
                self._sentinel.require()
                self._ready = True

    def _counted(self, ingested: Ingested) -> Ingested:
        if ingested.created:
            self._backing.on_ingested(ingested.size)
        return ingested

    def _ingest(self, task: _Task) -> Ingested:
        if task.intake.expected is None:
            return self._ingest_unnamed(task)
        return self._ingest_named(task, task.intake.expected)

    def _ingest_named(self, task: _Task, digest: Digest) -> Ingested:
        with self._locks.blob(digest, cancel=task.intake.cancel):
            existing = self._existing.find(digest, task.intake.size, task.intake.lease)
            if existing is not None and existing.whole:
                return self._keep(existing.info, task, None)
            adopted = None if existing is not None else self._adopt_present(digest, task)
            if adopted is not None:
                return adopted
            with self._receive(task) as received:
                return self._publish(received, existing, task)

    def _ingest_unnamed(self, task: _Task) -> Ingested:
        with (
            self._receive(task) as received,
            self._locks.blob(received.digest, cancel=task.intake.cancel),
        ):
            existing = self._existing.find(received.digest, received.size, task.intake.lease)
            if existing is not None and existing.whole:
                return self._keep(existing.info, task, received)
            return self._publish(received, existing, task)

    def _keep(self, info: BlobInfo, task: _Task, received: Received | None) -> Ingested:
        self._seeding.drop_staged(info.digest)
        self._existing.complete(info, task.labels)
        if task.move:
            self._remove_source(info.digest, task, received)
        return Ingested(info.digest, info.size, Way.EXISTED, created=False)

    def _adopt_present(self, digest: Digest, task: _Task) -> Ingested | None:
        """Register a file that a crash or another namespace left among the blobs."""
        if task.way is Way.STREAM or self._seeding.obstacle() is not None:
            return None
        size = self._seeding.adopt_present(digest, task.intake, task.labels)
        if size is None:
            return None
        if task.move:
            self._remove_source(digest, task, None)
        return Ingested(digest, size, Way.SEED, created=True)

    def _publish(self, received: Received, broken: Existing | None, task: _Task) -> Ingested:
        labels = dict(task.labels)
        if broken is not None:
            labels = {**self._existing.remove_broken(broken.info, task.intake.lease), **labels}
        way = received.way
        try:
            created = received.publish(labels)
        except NotSeen as reason:
            way = Way.STREAM
            created = self._publish_unseen(received, labels, task, reason)
        if not created:
            return self._keep(self._overtaken(received, task), task, received)
        if task.move:
            self._remove_source(received.digest, task, received)
        return Ingested(received.digest, received.size, way, created=True)

    def _publish_unseen(
        self, received: Received, labels: Mapping[str, str], task: _Task, reason: NotSeen
    ) -> bool:
        if task.way is Way.SEED:
            raise _not_seedable(str(reason)) from reason
        self._seeding.refuse(str(reason))
        if not isinstance(received, StagedBlob):
            # Linking in vain has left its marks on the inode; the file is read anew.
            raise Changed(str(reason)) from reason
        source = ChunkSource(received.chunks, task.intake.source.name, received.size)
        intake = replace(task.intake, source=source, expected=received.digest, size=received.size)
        with self._streaming.receive(intake) as streamed:
            return streamed.publish(labels)

    def _overtaken(self, received: Received, task: _Task) -> BlobInfo:
        existing = self._existing.find(received.digest, received.size, task.intake.lease)
        if existing is None or not existing.whole:
            raise _OvertakenError(
                f"another client of containerd made and removed blob {received.digest} while it "
                "was being stored; try again",
                digest=received.digest,
            )
        return existing.info

    @contextmanager
    def _receive(self, task: _Task) -> Iterator[Received]:
        intake = task.intake
        intake.check_total()
        intake.start()
        try:
            with self._receive_by_size(task) as received:
                yield received
        finally:
            intake.finish()

    @contextmanager
    def _receive_by_size(self, task: _Task) -> Iterator[Received]:
        total = task.intake.total
        limit = self._small_limit(task)
        if task.way is Way.SEED or (total is not None and total > limit):
            with self._receive_large(task) as received:
                yield received
            return
        source = task.intake.source
        with source.open() as reader:
            head = _read_head(reader, limit)
            if len(head) <= limit:
                yield self._streaming.small(task.intake, head)
                return
            whole = replace(task.intake, source=PrefixedSource(head, reader, source))
            with self._receive_large(replace(task, intake=whole)) as received:
                yield received

    def _small_limit(self, task: _Task) -> int:
        if task.way is Way.STREAM or self._seeding.obstacle() is not None:
            return SMALL_BLOB_BYTES
        return _SEEDED_ABOVE_BYTES

    @contextmanager
    def _receive_large(self, task: _Task) -> Iterator[Received]:
        obstacle = self._seeding.obstacle()
        if task.way is Way.SEED and obstacle is not None:
            raise _not_seedable(obstacle)
        with ExitStack() as stack:
            yield self._receive_one(task, stack, seed=obstacle is None)

    def _receive_one(self, task: _Task, stack: ExitStack, *, seed: bool) -> Received:
        if task.way is Way.STREAM or not seed:
            return stack.enter_context(self._streaming.receive(task.intake))
        source = task.intake.source
        if task.take and isinstance(source, FileSource):
            taken = stack.enter_context(self._seeding.take(task.intake, source))
            if taken is not None:
                return taken
        return stack.enter_context(self._seeding.receive(task.intake))

    def _remove_source(self, digest: Digest, task: _Task, received: Received | None) -> None:
        """End a move: the blob is durable, and the file was found to be the same bytes."""
        self.settle()
        source = task.intake.source
        if isinstance(received, TakenBlob):
            removed = received.remove_source()
        elif not isinstance(source, FileSource):
            return
        elif received is None and not holds(source, digest):
            removed = False
        else:
            removed = source.remove()
        if not removed:
            _log.warning("moved file stays, it is another one by now path=%s", source.path)


def _not_seedable(reason: str) -> DaemonVersionError:
    return DaemonVersionError(f"blobs cannot be seeded: {reason}; stream them", reason=reason)


def _read_head(reader: Reader, limit: int) -> bytes:
    """Up to one byte more than a small blob has."""
    chunks = []
    missing = limit + 1
    while missing and (chunk := reader.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
