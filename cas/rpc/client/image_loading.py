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
from cas.errors import BlobNotFoundError, CasError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import PIN_REASON, PINNED_BY_SENDING
from cas.model.progress import Progress
from cas.model.records import ImageRecord
from cas.rpc import messages, values
from cas.rpc.client.blobs import BlobsClient
from cas.rpc.client.calls import Calls
from cas.rpc.client.facts import ServiceFacts

if TYPE_CHECKING:
    from cas.store.image.loading import BlobToLoad

_log = logging.getLogger(__name__)


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
    with _sent_before(BlobsClient(calls, facts), listed, cancel, progress) as rest:
        return load(_request(reference, target, rest))


@contextmanager
def _sent_before(
    client: BlobsClient,
    blobs: "Sequence[BlobToLoad]",
    cancel: Cancellation | None,
    progress: Progress,
) -> "Iterator[list[BlobToLoad]]":
    """Have what is in memory stored; gives the blobs without it. Kept until they are loaded."""
    sent: list[Digest] = []
    try:
        for blob in blobs:
            if isinstance(blob.source, bytes):
                sent.append(blob.digest)
                client.send_for_image(
                    blob.source,
                    blob.digest,
                    media_type=blob.media_type,
                    cancel=cancel,
                    progress=progress,
                )
        yield list(map(_without_content, blobs))
    except BaseException:
        _let_go(client, sent)
        raise


def _without_content(blob: "BlobToLoad") -> "BlobToLoad":
    return replace(blob, source=None) if isinstance(blob.source, bytes) else blob


def _let_go(client: BlobsClient, digests: Sequence[Digest]) -> None:
    """Unpin what was sent, unless somebody else wants it by now."""
    for digest in digests:
        try:
            if client.get(digest).labels.get(PIN_REASON) == PINNED_BY_SENDING:
                client.unpin(digest)
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
