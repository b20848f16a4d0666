"""Images of blobs that lie about, on their way to the service in one request.

What does not fit into the request is sent before it, blob by blob, and pinned for a reason of its
own, with which the service lets it go when the image's name is there to keep it. What a killed
caller sent is let go by a recovery, a day later.
"""

__all__ = ["load_image"]

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cas._gen.cas.v1 import images_pb2, images_pb2_grpc
from cas.errors import BlobNotFoundError, CasError, ContentMissingError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import PINNED_BY_SENDING
from cas.model.progress import Progress
from cas.model.records import ImageRecord
from cas.rpc import messages, values
from cas.rpc.client.blobs import BlobsClient
from cas.rpc.client.calls import Calls
from cas.rpc.client.facts import ServiceFacts

if TYPE_CHECKING:
    from cas.store.image.loading import BlobToLoad

_log = logging.getLogger(__name__)

_ATTEMPTS = 4


def load_image(
    calls: Calls,
    facts: ServiceFacts,
    reference: str,
    target: Descriptor,
    blobs: "Iterable[BlobToLoad]",
    *,
    cancel: Cancellation | None,
    progress: Progress,
) -> ImageRecord:
    """Have an image loaded; see :meth:`cas.rpc.client.images.ImagesClient.load`."""

    def load(request: images_pb2.LoadImageRequest) -> ImageRecord:
        outcome = calls.outcome(
            images_pb2_grpc.ImagesStub(calls.channel).Load,
            request,
            action=f"load image {reference!r}",
            progress=progress,
            cancel=cancel,
        )
        return values.image(outcome.image)

    listed = list(blobs)
    request = _request(reference, target, listed)
    if request.ByteSize() <= facts.message_bytes:
        return load(request)
    client, sent = BlobsClient(calls, facts), list[Digest]()
    with _let_go_on_failure(client, sent):
        for _ in range(_ATTEMPTS - 1):
            rest = list(_sent_before(client, listed, sent, cancel, progress))
            try:
                return load(_request(reference, target, rest))
            except ContentMissingError:
                # Others who sent the same, and failed, may have let it go.
                if not any(client.missing(sent)):
                    raise
        rest = list(_sent_before(client, listed, sent, cancel, progress))
        return load(_request(reference, target, rest))


def _sent_before(
    client: BlobsClient,
    blobs: "Sequence[BlobToLoad]",
    sent: list[Digest],
    cancel: Cancellation | None,
    progress: Progress,
) -> "Iterator[BlobToLoad]":
    """Have what is in memory stored, and yield the blobs without it."""
    for blob in blobs:
        if not isinstance(blob.source, bytes):
            yield blob
            continue
        sent.append(blob.digest)
        client.send_for_image(
            blob.source,
            blob.digest,
            media_type=blob.media_type,
            cancel=cancel,
            progress=progress,
        )
        yield replace(blob, source=None)


@contextmanager
def _let_go_on_failure(client: BlobsClient, sent: Sequence[Digest]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _let_go(client, sent)
        raise


def _let_go(client: BlobsClient, digests: Sequence[Digest]) -> None:
    """Unpin what was sent, unless somebody else wants it by now."""
    for digest in dict.fromkeys(digests):
        try:
            client.unpin(digest, reason=PINNED_BY_SENDING)
        except BlobNotFoundError:
            continue
        except CasError as error:
            _log.warning("blob of an image stays pinned digest=%s error=%s", digest, error.message)


def _request(
    reference: str, target: Descriptor, blobs: "Sequence[BlobToLoad]"
) -> images_pb2.LoadImageRequest:
    return images_pb2.LoadImageRequest(
        name=reference, target=messages.descriptor(target), blobs=map(_blob_to_load, blobs)
    )


def _blob_to_load(blob: "BlobToLoad") -> images_pb2.LoadBlob:
    message = images_pb2.LoadBlob(
        digest=str(blob.digest), size=blob.size, media_type=blob.media_type or "", move=blob.move
    )
    if isinstance(blob.source, bytes):
        message.content = blob.source
    elif blob.source is not None:
        message.path = str(blob.source)
    return message
