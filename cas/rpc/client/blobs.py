"""Blobs, asked for from the service; :class:`cas.store.content.blobs.Blobs` has the promises."""

__all__ = ["BlobsClient"]

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from uuid import UUID

from cas._gen.cas.v1 import blobs_pb2
from cas.errors import CasError, CorruptBlobError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import BlobInfo
from cas.rpc import values
from cas.rpc.client.blob_ingest import BlobIngestClient
from cas.rpc.limits import DIGESTS
from cas.rpc.status import error_from_message
from cas.store.content.intake import Ingested
from cas.store.filters import BlobFilters

_NO_FILTERS = BlobFilters()


class BlobsClient(BlobIngestClient):
    """The blobs of a service's store; may be shared by threads.

    Args:
        calls: Makes the calls.
        facts: What the service said of itself.
    """

    def pull(
        self,
        url: str,
        digest: Digest,
        *,
        size: int | None = None,
        media_type: str | None = None,
        image: UUID | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Pull a single file from where it is published, as a pinned blob.

        See :meth:`cas.pull.pull.Pull.file` for what holds after a failure, for the arguments and
        for the errors; credentials and policy are those of the service. Idempotent. Blocks.

        Raises:
            UsageError: The URL is of a file of the service's machine.
        """
        request = blobs_pb2.PullBlobRequest(
            url=url,
            digest=str(digest),
            size=size,
            media_type=media_type or "",
            uuid="" if image is None else str(image),
        )
        outcome = self._calls.outcome(
            self._stub.Pull,
            request,
            action=f"pull blob {digest}",
            progress=progress,
            cancel=cancel,
        )
        return values.ingested(outcome.pulled)

    def iter_blobs(self, filters: BlobFilters = _NO_FILTERS) -> Iterator[BlobInfo]:
        """Stream the records of all blobs that match, in no particular order."""
        request = blobs_pb2.ListBlobsRequest(filters=filters.texts)
        with closing(self._calls.stream(self._stub.List, request, action="list blobs")) as answers:
            for answer in answers:
                yield from map(values.blob, answer.blobs)

    def get(self, digest: Digest) -> BlobInfo:
        """Give a blob's record.

        Raises:
            BlobNotFoundError: There is none.
        """
        request = blobs_pb2.GetBlobRequest(digest=str(digest))
        return values.blob(
            self._calls.unary(self._stub.Get, request, action=f"look up blob {digest}")
        )

    def iter_media_types(self) -> Iterator[tuple[Digest, str]]:
        """Stream the digests of all blobs whose media type is known, each with it, in no order."""
        request = blobs_pb2.ListMediaTypesRequest()
        with closing(
            self._calls.stream(self._stub.ListMediaTypes, request, action="list media types")
        ) as answers:
            for answer in answers:
                yield from ((Digest.parse(row.digest), row.media_type) for row in answer.blobs)

    def children(self, digest: Digest) -> list[Descriptor]:
        """List what the bytes of a manifest or index refer to; nothing for any other blob.

        Raises:
            BlobNotFoundError: There is no such blob.
            CorruptBlobError: Its bytes are not those of the digest.
            MalformedDocumentError: It is a manifest or an index that is not valid.
        """
        request = blobs_pb2.BlobChildrenRequest(digest=str(digest))
        action = f"list the children of blob {digest}"
        answer = self._calls.unary(self._stub.Children, request, action=action)
        return list(map(values.descriptor, answer.children))

    def update_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> BlobInfo:
        """Set labels, remove those that are None, leave the others. Idempotent.

        Raises:
            BlobNotFoundError: There is no such blob.
            InvalidNameError: A label is containerd's or the store's own, is too long, or is to be
                set to nothing.
        """
        request = blobs_pb2.UpdateBlobLabelsRequest(
            digest=str(digest),
            set={key: value for key, value in changes.items() if value is not None},
            remove=[key for key, value in changes.items() if value is None],
        )
        action = f"update the labels of blob {digest}"
        return values.blob(self._calls.unary(self._stub.UpdateLabels, request, action=action))

    def read(self, digest: Digest, *, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        """Stream a blob's bytes; the whole of it is verified as it passes, a part cannot be.

        Args:
            digest: The blob.
            offset: Where to begin, bytes.
            size: How much at most; 0 for all that follows.

        Yields:
            Pieces of at most 256 KiB. Those of a whole blob are proven right only when the iterator
            ends by itself.

        Raises:
            BlobNotFoundError: There is none.
            CorruptBlobError: The bytes are gone, or, at the end, were not those of the digest.
            UsageError: The range does not begin within the blob.
        """
        request = blobs_pb2.ReadBlobRequest(digest=str(digest), offset=offset, length=size)
        running = hashlib.sha256()
        with closing(
            self._calls.stream(self._stub.Read, request, action=f"read blob {digest}")
        ) as answers:
            for answer in answers:
                running.update(answer.data)
                yield answer.data
        actual = Digest(running.hexdigest())
        if not offset and not size and actual != digest:
            raise CorruptBlobError(
                f"blob {digest} came with digest {actual}; run `cas check --fix`",
                digest=digest,
                actual=actual,
            )

    def verify(
        self,
        digest: Digest,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> BlobInfo:
        """Have a blob read to its end and compared with its digest; gives its record.

        Raises:
            BlobNotFoundError: There is none.
            CorruptBlobError: The bytes are gone, or not those of the digest.
            InterruptedOperationError: ``cancel`` was set.
        """
        outcome = self._calls.outcome(
            self._stub.Verify,
            blobs_pb2.VerifyBlobRequest(digest=str(digest)),
            action=f"verify blob {digest}",
            progress=progress,
            cancel=cancel,
        )
        return values.blob(outcome.blob)

    def missing(self, digests: Iterable[Digest]) -> Iterator[Digest]:
        """Yield those of the digests that the store does not hold, in order."""
        wanted = iter(digests)
        while group := list(islice(wanted, DIGESTS)):
            request = blobs_pb2.MissingBlobsRequest(digests=map(str, group))
            answer = self._calls.unary(self._stub.Missing, request, action="look for blobs")
            yield from map(Digest.parse, answer.digests)

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
        if isinstance(outcome, CasError):
            raise outcome
        return outcome

    def remove_many(
        self, digests: Iterable[Digest], *, force: bool = False
    ) -> Iterator[tuple[Digest, bool | CasError]]:
        """Remove blobs with one look at the references per 4096; see :meth:`remove`.

        Yields:
            Each digest, in order, and whether it was there, or why it stays.

        Raises:
            StoreMetadataLostError: containerd's database was emptied.
        """
        wanted = iter(digests)
        while group := list(islice(wanted, DIGESTS)):
            request = blobs_pb2.RemoveBlobsRequest(digests=map(str, group), force=force)
            with closing(
                self._calls.stream(self._stub.Remove, request, action="remove blobs")
            ) as answers:
                yield from map(_removal, answers)

    def pin(self, digest: Digest, *, owner: str, reason: str) -> BlobInfo:
        """Keep a blob until it is unpinned or removed; owner and reason are for people.

        Idempotent; the last owner and reason stay.

        Raises:
            BlobNotFoundError: There is none.
        """
        request = blobs_pb2.PinBlobRequest(digest=str(digest), owner=owner, reason=reason)
        return values.blob(self._calls.unary(self._stub.Pin, request, action=f"pin blob {digest}"))

    def unpin(self, digest: Digest, *, reason: str | None = None) -> BlobInfo:
        """Let a blob go unless something refers to it. Idempotent.

        Args:
            digest: The blob.
            reason: Only if it is pinned for this reason; None for any.

        Raises:
            BlobNotFoundError: There is none; asked again, a collection may have taken it.
        """
        request = blobs_pb2.UnpinBlobRequest(digest=str(digest), reason=reason or "")
        action = f"unpin blob {digest}"
        return values.blob(self._calls.unary(self._stub.Unpin, request, action=action))


def _removal(answer: blobs_pb2.RemoveBlobsResponse) -> tuple[Digest, bool | CasError]:
    digest = Digest.parse(answer.digest)
    if answer.HasField("error"):
        return digest, error_from_message(answer.error)
    return digest, answer.removed
