"""The service ``cas.v1.Blobs``."""

__all__ = ["BlobsServicer"]

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from urllib.parse import urlsplit

from cas._gen.cas.v1 import blobs_pb2, types_pb2
from cas.errors import CasError, InUseError, UsageError
from cas.model.digest import Digest
from cas.model.labels import PIN_REASON, PINNED_BY_SENDING, check_free_labels
from cas.model.printable import printable
from cas.model.progress import Progress
from cas.model.records import BlobInfo
from cas.rpc import messages, values
from cas.rpc.limits import DIGESTS
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.prune import PruneCalls
from cas.rpc.server.registry import ONLY_WORK
from cas.rpc.server.reporting import reported
from cas.rpc.server.served import Workshop
from cas.rpc.server.transfer import MAX_NAME, UploadedBytes, first_message, pieces
from cas.rpc.status import error_message
from cas.store.content.ingest import Ingested
from cas.store.filters import parse_blob_filters
from cas.store.prune.selection import Scope

_LOCAL = "file"


class BlobsServicer:
    """Serves the blobs of a store.

    Args:
        shop: What it works with.
        prune: Serves prunes.
    """

    SERVICE = blobs_pb2.DESCRIPTOR.services_by_name["Blobs"]
    READING = frozenset(
        {"get", "exists", "missing", "list", "list_media_types", "read", "children", "verify"}
        | {"prune"}  # unless it is no dry run: see PruneCalls
    )
    UNGUARDED: frozenset[str] = frozenset()
    KINDS = ONLY_WORK

    def __init__(self, shop: Workshop, prune: PruneCalls) -> None:
        self._shop = shop
        self._blobs = shop.store.blobs
        self._prune = prune

    def ingest(
        self, request: blobs_pb2.IngestBlobRequest, call: Call
    ) -> Iterator[blobs_pb2.IngestBlobResponse]:
        """Store a file."""
        path, beneath = self._shop.paths.locate(request.path)
        check_free_labels(request.labels)
        digest, size = _expected(request)

        def work(progress: Progress) -> Ingested:
            return self._blobs.ingest(
                path,
                digest=digest,
                size=size,
                media_type=request.media_type or None,
                labels=dict(request.labels),
                move=request.move,
                beneath=beneath,
                cancel=call.cancellation,
                progress=progress,
            )

        result = yield from reported(
            call, self._shop.workers, self._shop.gates.bulk, work, _ingesting
        )
        yield blobs_pb2.IngestBlobResponse(ingested=messages.ingested(result))

    def upload(
        self, requests: Iterator[blobs_pb2.UploadBlobRequest], call: Call
    ) -> blobs_pb2.IngestedBlob:
        """Store bytes that the caller sends."""
        header = first_message(requests).header
        check_free_labels(header.labels)
        digest, size = _expected(header)
        with call.holding(self._shop.gates.transfers):
            result = self._blobs.ingest_stream(
                UploadedBytes(requests),
                name=printable(header.name[:MAX_NAME]) or "the caller's bytes",
                digest=digest,
                size=size,
                media_type=header.media_type or None,
                labels=_labels(header),
                cancel=call.cancellation,
            )
        return messages.ingested(result)

    def pull(
        self, request: blobs_pb2.PullBlobRequest, call: Call
    ) -> Iterator[blobs_pb2.PullBlobResponse]:
        """Bring in a file from where it is published."""
        digest, image = Digest.parse(request.digest), values.uuid(request.uuid)
        _, size = _expected(request)
        _refuse_local(request.url)

        def work(progress: Progress) -> Ingested:
            return self._shop.store.pull.file(
                request.url,
                digest,
                size=size,
                media_type=request.media_type or None,
                image=image,
                cancel=call.cancellation,
                progress=progress,
            )

        result = yield from reported(
            call, self._shop.workers, self._shop.gates.pulls, work, _pulling
        )
        yield blobs_pb2.PullBlobResponse(pulled=messages.ingested(result))

    def get(self, request: blobs_pb2.GetBlobRequest, _call: Call) -> blobs_pb2.Blob:
        """Give a record."""
        return messages.blob(self._blobs.get(Digest.parse(request.digest)))

    def exists(
        self, request: blobs_pb2.BlobExistsRequest, _call: Call
    ) -> blobs_pb2.BlobExistsResponse:
        """Tell whether a blob is there."""
        return blobs_pb2.BlobExistsResponse(exists=self._blobs.exists(Digest.parse(request.digest)))

    def missing(
        self, request: blobs_pb2.MissingBlobsRequest, _call: Call
    ) -> blobs_pb2.MissingBlobsResponse:
        """Give those that are not there."""
        absent = self._blobs.missing(_digests(request.digests))
        return blobs_pb2.MissingBlobsResponse(digests=map(str, absent))

    def list(
        self, request: blobs_pb2.ListBlobsRequest, _call: Call
    ) -> Iterator[blobs_pb2.ListBlobsResponse]:
        """List records."""
        filters = parse_blob_filters(request.filters, now=self._shop.store.now())
        for group in batched(map(messages.blob, self._blobs.iter_blobs(filters))):
            yield blobs_pb2.ListBlobsResponse(blobs=group)

    def list_media_types(
        self, _request: blobs_pb2.ListMediaTypesRequest, _call: Call
    ) -> Iterator[blobs_pb2.ListMediaTypesResponse]:
        """List media types."""
        known = (
            messages.blob_media_type(digest, media_type)
            for digest, media_type in self._blobs.iter_media_types()
        )
        for group in batched(known):
            yield blobs_pb2.ListMediaTypesResponse(blobs=group)

    def read(
        self, request: blobs_pb2.ReadBlobRequest, call: Call
    ) -> Iterator[blobs_pb2.ReadBlobResponse]:
        """Give bytes."""
        digest = Digest.parse(request.digest)
        with call.holding(self._shop.gates.transfers):
            chunks = self._blobs.read(digest, offset=request.offset, size=request.length)
            with closing(chunks):
                for piece in pieces(chunks):
                    yield blobs_pb2.ReadBlobResponse(data=piece)

    def update_labels(
        self, request: blobs_pb2.UpdateBlobLabelsRequest, _call: Call
    ) -> blobs_pb2.Blob:
        """Set and remove labels."""
        both = sorted(set(request.set) & set(request.remove))
        if both:
            raise UsageError(f"label {both[0][:100]!r} is to be set and to be removed")
        changes: dict[str, str | None] = {**request.set, **dict.fromkeys(request.remove)}
        digest = Digest.parse(request.digest)
        return messages.blob(self._blobs.update_labels(digest, changes))

    def pin(self, request: blobs_pb2.PinBlobRequest, _call: Call) -> blobs_pb2.Blob:
        """Keep a blob."""
        digest = Digest.parse(request.digest)
        return messages.blob(self._blobs.pin(digest, owner=request.owner, reason=request.reason))

    def unpin(self, request: blobs_pb2.UnpinBlobRequest, _call: Call) -> blobs_pb2.Blob:
        """Let a blob go."""
        return messages.blob(
            self._blobs.unpin(Digest.parse(request.digest), reason=request.reason or None)
        )

    def remove(
        self, request: blobs_pb2.RemoveBlobsRequest, call: Call
    ) -> Iterator[blobs_pb2.RemoveBlobsResponse]:
        """Remove blobs."""
        wanted = _digests(request.digests)
        outcomes: list[tuple[Digest, bool | InUseError]] = []
        failure: CasError | None = None
        with self._shop.gates.account.entered(call.cancellation):
            # All of them, so that no slow reader holds the place.
            try:
                outcomes.extend(self._blobs.remove_many(wanted, force=request.force))
            except CasError as error:
                failure = error
        yield from map(_removal, outcomes)
        if failure is not None:
            raise failure

    def children(
        self, request: blobs_pb2.BlobChildrenRequest, _call: Call
    ) -> blobs_pb2.BlobChildrenResponse:
        """Give what a blob refers to."""
        listed = self._blobs.children(Digest.parse(request.digest))
        return blobs_pb2.BlobChildrenResponse(children=map(messages.descriptor, listed))

    def verify(
        self, request: blobs_pb2.VerifyBlobRequest, call: Call
    ) -> Iterator[blobs_pb2.VerifyBlobResponse]:
        """Compare a blob with its digest."""
        digest = Digest.parse(request.digest)

        def work(progress: Progress) -> BlobInfo:
            return self._blobs.verify(digest, cancel=call.cancellation, progress=progress)

        info = yield from reported(
            call, self._shop.workers, self._shop.gates.bulk, work, _verifying
        )
        yield blobs_pb2.VerifyBlobResponse(blob=messages.blob(info))

    def prune(
        self, request: types_pb2.PruneRequest, call: Call
    ) -> Iterator[types_pb2.PruneResponse]:
        """Remove pinned blobs that pass the filters."""
        return self._prune.run(request, call, Scope.BLOBS)


def _ingesting(report: types_pb2.Progress) -> blobs_pb2.IngestBlobResponse:
    return blobs_pb2.IngestBlobResponse(progress=report)


def _pulling(report: types_pb2.Progress) -> blobs_pb2.PullBlobResponse:
    return blobs_pb2.PullBlobResponse(progress=report)


def _verifying(report: types_pb2.Progress) -> blobs_pb2.VerifyBlobResponse:
    return blobs_pb2.VerifyBlobResponse(progress=report)


def _refuse_local(url: str) -> None:
    """Refuse files of this machine: the service may read more of them than its callers."""
    with suppress(ValueError):  # refused as no URL, by whoever opens it
        if urlsplit(url).scheme == _LOCAL:
            raise UsageError("the service downloads no files of its machine; ingest them")


def _removal(outcome: tuple[Digest, bool | CasError]) -> blobs_pb2.RemoveBlobsResponse:
    digest, done = outcome
    if isinstance(done, CasError):
        return blobs_pb2.RemoveBlobsResponse(digest=str(digest), error=error_message(done))
    return blobs_pb2.RemoveBlobsResponse(digest=str(digest), removed=done)


def _labels(header: blobs_pb2.UploadBlobHeader) -> dict[str, str]:
    labels = dict(header.labels)
    if header.for_image:
        labels[PIN_REASON] = PINNED_BY_SENDING
    return labels


def _expected(
    request: blobs_pb2.IngestBlobRequest | blobs_pb2.UploadBlobHeader | blobs_pb2.PullBlobRequest,
) -> tuple[Digest | None, int | None]:
    """Give the digest and the size that the bytes must have."""
    size = request.size if request.HasField("size") else None
    if size is not None and size < 0:
        raise UsageError(f"a blob of {size} bytes is impossible", size=size)
    return Digest.parse(request.digest) if request.digest else None, size


def _digests(texts: Sequence[str]) -> list[Digest]:
    if len(texts) > DIGESTS:
        raise UsageError(
            f"{len(texts)} digests are more than the {DIGESTS} of one request; ask several times",
            actual=len(texts),
            expected=DIGESTS,
        )
    return [Digest.parse(text) for text in texts]
