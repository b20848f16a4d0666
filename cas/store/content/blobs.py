"""Blobs on their own, as people and volumemgr see them; a use case of the store.

A blob that is ingested here is pinned until somebody removes or prunes it; a blob that came with
an image lives through the image. What is returned or yielded as stored is durable.
"""

__all__ = ["Blobs"]

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from cas.errors import BlobNotFoundError, InUseError, InvalidNameError
from cas.model.cancellation import Cancellation, JointCancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, MEDIA_TYPE, PIN_OWNER, PIN_REASON, check_free_labels
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import BlobInfo
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.blob_removal import BlobRemoval
from cas.store.content.children import blob_children
from cas.store.content.ingest import Ingest, Ingested
from cas.store.content.pins import UNPINNED, let_go
from cas.store.content.reading import BlobReading
from cas.store.content.sources import FileSource, Reader, Source, StreamSource
from cas.store.filters import BlobFilters
from cas.store.leasing import Lease, Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel
from cas.store.workers import WorkerPool

_WINDOW = 64
"""Files submitted ahead of the oldest result; so many may share a sync, and bound memory."""
_ONE_BY_ONE = 64
"""Up to this many digests are looked up one by one, more by one pass over the store's list."""
_WANTED = 16384
"""Digests looked up in one pass; bounds memory to some MiB."""
_NO_FILTERS = BlobFilters()
_OWNER = "cas"


class Blobs:
    """The blobs of one store; may be shared by threads.

    Args:
        backing: The store.
        workers: Blobs worked on at once by :meth:`ingest_many`.
    """

    def __init__(self, backing: Backing, *, workers: int = 4) -> None:
        self._backing = backing
        self._workers = workers
        self._ingest = Ingest(backing)
        self._leasing = Leasing(backing)
        self._locks = Locks(backing.layout)
        self._files = BlobFiles(backing)
        self._reading = BlobReading(backing, self._files)
        self._sentinel = Sentinel(backing)
        self._removal = BlobRemoval(backing)

    def ingest(  # noqa: PLR0913 - independent options, all by keyword
        self,
        path: Path,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        move: bool = False,
        beneath: Path | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Store a file as a pinned blob; on return it is verified and durable.

        See :meth:`cas.store.content.ingest.Ingest.ingest` for what holds after a failure, for the
        arguments and for the errors; with ``beneath`` also ``DeniedError``: the file is not below
        that directory, or is reached through a symbolic link. Idempotent.
        """
        return self.ingest_source(
            FileSource(path, beneath=beneath),
            digest=digest,
            size=size,
            media_type=media_type,
            labels=labels,
            move=move,
            cancel=cancel,
            progress=progress,
        )

    def ingest_stream(
        self,
        stream: Reader,
        *,
        name: str = "standard input",
        digest: Digest | None = None,
        size: int | None = None,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Store what an open binary file has left as a pinned blob; see :meth:`ingest`."""
        return self.ingest_source(
            StreamSource(stream, name),
            digest=digest,
            size=size,
            media_type=media_type,
            labels=labels,
            cancel=cancel,
            progress=progress,
        )

    def ingest_source(
        self,
        source: Source,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        move: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Store what a source gives as a pinned blob; see :meth:`ingest`."""
        with self._leasing.hold("ingest") as lease:
            result = self._ingest.ingest(
                source,
                lease,
                expected=digest,
                size=size,
                media_type=media_type,
                labels=self._pinned(labels),
                move=move,
                cancel=cancel,
                progress=progress,
            )
            self._ingest.settle()
        return result

    def ingest_many(
        self,
        paths: Iterable[Path],
        *,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        move: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Iterator[Ingested]:
        """Store files as pinned blobs, several at once, in bounded memory.

        The first file that fails ends it: what was yielded is stored, work under way is undone.
        Closing the iterator does the same without an error.

        Yields:
            One result per path, in order, each durable when it is yielded.
        """
        stop = JointCancellation(cancel)
        pinned = self._pinned(labels)

        def store(path: Path, lease: Lease) -> Ingested:
            return self._ingest.ingest(
                FileSource(path),
                lease,
                media_type=media_type,
                labels=pinned,
                move=move,
                cancel=stop,
                progress=progress,
            )

        with (
            self._leasing.hold("ingest") as lease,
            WorkerPool(self._workers, "cas-ingest") as pool,
        ):
            window: deque[Future[Ingested]] = deque()
            try:
                for path in paths:
                    window.append(pool.submit(store, path, lease))
                    if len(window) >= _WINDOW:
                        yield from self._acknowledge(window)
                while window:
                    yield from self._acknowledge(window)
            finally:
                # Whoever still works does so for nothing, the one that is waited for included.
                stop.set()
                for future in window:
                    future.cancel()

    def _acknowledge(self, window: deque[Future[Ingested]]) -> Iterator[Ingested]:
        """Wait for the oldest; with it go all that are done by then, after one sync."""
        done = [window.popleft().result()]
        while window and window[0].done() and window[0].exception() is None:
            done.append(window.popleft().result())
        self._ingest.settle()
        yield from done

    def iter_blobs(self, filters: BlobFilters = _NO_FILTERS) -> Iterator[BlobInfo]:
        """Stream the records of all blobs that match, in no particular order."""
        return filter(filters.matches, self._backing.content.iter_blobs())

    def get(self, digest: Digest) -> BlobInfo:
        """Give a blob's record.

        Raises:
            BlobNotFoundError: There is none.
        """
        return self._backing.content.info(digest)

    def iter_media_types(self) -> Iterator[tuple[Digest, str]]:
        """Stream the digests of all blobs whose media type is known, each with it, in no order."""
        for info in self._backing.content.iter_blobs():
            if media_type := info.labels.get(MEDIA_TYPE):
                yield info.digest, media_type

    def children(self, digest: Digest) -> list[Descriptor]:
        """List what the bytes of a manifest or index refer to; nothing for any other blob.

        See :func:`cas.store.content.children.blob_children` for the errors.
        """
        return blob_children(self._backing, digest)

    def update_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> BlobInfo:
        """Set labels, remove those that are None, leave the others. Idempotent.

        Raises:
            BlobNotFoundError: There is no such blob.
            InvalidNameError: A label is containerd's or the store's own, is too long, or is to be
                set to nothing.
        """
        check_free_labels(changes)
        empty = next((key for key, value in changes.items() if value == ""), None)
        if empty is not None:
            raise InvalidNameError(f"label {empty!r} has no value; remove it instead", value=empty)
        self._backing.check_writable()
        return self._backing.content.update_labels(digest, changes)

    def read(
        self, digest: Digest, *, offset: int = 0, size: int = 0
    ) -> Generator[bytes, None, None]:
        """Stream a blob's bytes in chunks of at most 1 MiB; the whole of it is verified.

        See :meth:`cas.store.content.reading.BlobReading.read` for ranges and errors.
        """
        return self._reading.read(digest, offset=offset, size=size)

    def verify(
        self,
        digest: Digest,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> BlobInfo:
        """Read a blob to its end and compare it with its digest; gives its record.

        See :meth:`cas.store.content.reading.BlobReading.verify` for the errors.
        """
        return self._reading.verify(digest, cancel=cancel, progress=progress)

    def exists(self, digest: Digest) -> bool:
        """Whether the store holds the blob: a record and, where that can be seen, its file."""
        return next(self.missing([digest]), None) is None

    def missing(self, digests: Iterable[Digest]) -> Iterator[Digest]:
        """Yield those of the digests that the store does not hold, in order."""
        wanted = iter(digests)
        while group := list(islice(wanted, _WANTED)):
            held = self._held(group)
            yield from (digest for digest in group if digest not in held)

    def remove(self, digest: Digest, *, force: bool = False) -> bool:
        """Remove a blob, pinned or not; its space comes back with the next collection.

        Idempotent. For many blobs see :meth:`remove_many`.

        Args:
            digest: The blob.
            force: Also if something refers to it, which then lacks it.

        Returns:
            Whether it was there.

        Raises:
            InUseError: An image, volume, snapshot, blob or running operation refers to it.
            StoreMetadataLostError: containerd's database was emptied.
        """
        [(_, outcome)] = self.remove_many([digest], force=force)
        if isinstance(outcome, InUseError):
            raise outcome
        return outcome

    def remove_many(
        self, digests: Iterable[Digest], *, force: bool = False
    ) -> Iterator[tuple[Digest, bool | InUseError]]:
        """Remove blobs with one look at the references per 16384; see :meth:`remove`.

        Unless forced, blobs only lose their pins here and containerd's collector decides: whoever
        comes to refer to one meanwhile keeps it.

        Yields:
            Each digest, in order, and whether it was there, or why it stays.

        Raises:
            StoreMetadataLostError: containerd's database was emptied.
        """
        self._backing.check_writable()
        self._sentinel.require()
        wanted = iter(digests)
        while group := list(islice(wanted, _WANTED)):
            yield from self._removal.remove(group, force=force)

    def pin(self, digest: Digest, *, owner: str, reason: str) -> BlobInfo:
        """Keep a blob until it is unpinned or removed; owner and reason are for people.

        Idempotent; the last owner and reason stay.

        Raises:
            BlobNotFoundError: There is none.
        """
        self._backing.check_writable()
        with self._locks.blob(digest):  # see let_go
            return self._backing.content.update_labels(digest, self._pin(owner, reason))

    def unpin(self, digest: Digest, *, reason: str | None = None) -> BlobInfo:
        """Let a blob go unless something refers to it. Idempotent.

        Args:
            digest: The blob.
            reason: Only if it is pinned for this reason; None for any.

        Raises:
            BlobNotFoundError: There is none; asked again, a collection may have taken it.
        """
        self._backing.check_writable()
        if reason is None:
            return self._backing.content.update_labels(digest, UNPINNED)
        let_go(self._backing, digest, (reason,))
        return self.get(digest)

    def _held(self, group: list[Digest]) -> set[Digest]:
        content = self._backing.content
        found: Iterable[BlobInfo]
        if len(group) <= _ONE_BY_ONE:
            found = filter(None, map(self._info, group))
        else:
            wanted = frozenset(group)
            found = (info for info in content.iter_blobs() if info.digest in wanted)
        return {info.digest for info in found if self._is_whole(info)}

    def _info(self, digest: Digest) -> BlobInfo | None:
        try:
            return self._backing.content.info(digest)
        except BlobNotFoundError:
            return None

    def _is_whole(self, info: BlobInfo) -> bool:
        return self._files.lies_there(info.digest, info.size) is not False

    def _pinned(self, labels: Mapping[str, str] | None) -> dict[str, str]:
        return {**self._pin(_OWNER, "ingested on its own"), **(labels or {})}

    def _pin(self, owner: str, reason: str) -> dict[str, str]:
        return {
            GC_ROOT: self._backing.clock().isoformat(timespec="seconds"),
            PIN_OWNER: owner,
            PIN_REASON: reason,
        }
