"""Images whose blobs lie about as files or in memory; a use case of the store.

Invariants: everything happens under one lease; a file that is moved is removed only when its blob
is durable and kept, so that a failure after that loses nothing; the name comes last.
"""

__all__ = ["BlobToLoad", "ImageLoading"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cas.errors import BlobNotFoundError, ContentMissingError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.labels import (
    GC_ROOT,
    PIN_OWNER,
    PIN_REASON,
    PINNED_BY_MOVE,
    PINNED_BY_SENDING,
)
from cas.model.progress import Progress
from cas.model.records import ImageRecord
from cas.store.backing import Backing
from cas.store.content.blob_batch import BlobBatch
from cas.store.content.ingest import Ingest
from cas.store.content.pins import let_go
from cas.store.content.sources import BytesSource, FileSource, Source
from cas.store.image.archives.archive import AbsentSource
from cas.store.image.names import ImageNames
from cas.store.leasing import Lease, Leasing

_OWNER = "cas"


@dataclass(frozen=True, slots=True)
class BlobToLoad:
    """A blob of an image that is to be loaded.

    Args:
        digest: That its bytes must have.
        source: A file, or the bytes; None if the store must have it.
        size: Number of bytes that there must be; None for any.
        media_type: Remembered with the blob, if none is.
        move: Take the file over if possible, and remove its name when the blob is stored.
        beneath: A directory that the file must lie below; no symbolic link is followed then.
        labels: Stored with it.
    """

    digest: Digest
    source: Path | bytes | None
    size: int | None = None
    media_type: str | None = None
    move: bool = False
    beneath: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


class ImageLoading:
    """Loads images into one store.

    Args:
        backing: The store.
        leasing: Makes its leases.
        ingest: Takes blobs in.
        names: Records names.
        link: Sees to it that the labels of an image's blobs keep the whole image.
        workers: Blobs worked on at once.
    """

    def __init__(
        self,
        backing: Backing,
        *,
        leasing: Leasing,
        ingest: Ingest,
        names: ImageNames,
        link: Callable[[Descriptor, Lease, Platform], None],
        workers: int,
    ) -> None:
        self._backing = backing
        self._leasing = leasing
        self._ingest = ingest
        self._names = names
        self._link = link
        self._workers = workers

    def load(
        self,
        reference: str,
        target: Descriptor,
        blobs: Iterable[BlobToLoad],
        *,
        labels: Mapping[str, str],
        platform: Platform,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> ImageRecord:
        """See :meth:`cas.store.image.images.Images.load`.

        Args:
            reference: The name, checked.
            target: What it is to point to.
            blobs: Those that may have to be stored.
            labels: Of a new name.
            platform: The platform that must not be there in part only.
            cancel: Stops the work.
            progress: Told of every chunk.
        """
        listed = list({blob.digest: blob for blob in blobs}.values())
        with self._leasing.hold("load") as lease:
            self._store(listed, lease, cancel, progress)
            root = self._sized(target, lease)
            self._link(root, lease, platform)
            if cancel is not None:
                cancel.check()
            record = self._names.put(reference, root, labels)
            self._unpin(listed)
        return record

    def _store(
        self,
        blobs: Sequence[BlobToLoad],
        lease: Lease,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        def step(blob: BlobToLoad, stop: Cancellation) -> None:
            self._ingest.ingest(
                _source(blob),
                lease,
                expected=blob.digest,
                size=blob.size,
                media_type=blob.media_type,
                labels={**blob.labels, **(self._pin() if blob.move else {})},
                move=blob.move,
                cancel=stop,
                progress=progress,
            )

        BlobBatch(self._workers, cancel).run(blobs, step)
        self._ingest.settle()

    def _sized(self, target: Descriptor, lease: Lease) -> Descriptor:
        if target.size:
            return target
        lease.pin_blob(target.digest)
        try:
            return replace(target, size=self._backing.content.info(target.digest).size)
        except BlobNotFoundError as error:
            raise ContentMissingError(
                f"{target.digest} ({target.media_type}) is neither among the blobs nor in the "
                "store; give it as well",
                digest=target.digest,
            ) from error

    def _pin(self) -> dict[str, str]:
        return {
            GC_ROOT: self._backing.clock().isoformat(timespec="seconds"),
            PIN_OWNER: _OWNER,
            PIN_REASON: PINNED_BY_MOVE,
        }

    def _unpin(self, blobs: Iterable[BlobToLoad]) -> None:
        """Drop the pins that were to last until now, of earlier attempts too: the image keeps them.

        A pin that somebody asked for has another reason and stays.
        """
        for blob in blobs:
            with suppress(BlobNotFoundError):
                let_go(self._backing, blob.digest, (PINNED_BY_MOVE, PINNED_BY_SENDING))


def _source(blob: BlobToLoad) -> Source:
    match blob.source:
        case Path():
            return FileSource(blob.source, beneath=blob.beneath)
        case bytes():
            return BytesSource(blob.source, f"blob {blob.digest}")
        case None:
            return AbsentSource(f"blob {blob.digest}", "give its content as well")
