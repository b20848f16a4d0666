"""Blobs on their way to the service: named to it where it may read them, sent to it elsewhere."""

__all__ = ["BlobIngestClient"]

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cas._gen.cas.v1 import blobs_pb2, blobs_pb2_grpc, types_pb2
from cas.errors import IntegrityError
from cas.model.cancellation import Cancellation, JointCancellation
from cas.model.digest import Digest
from cas.model.progress import NO_PROGRESS, Progress
from cas.rpc import values
from cas.rpc.client.calls import Calls
from cas.rpc.client.facts import ServiceFacts
from cas.rpc.client.running import Send
from cas.store.content.intake import Ingested

if TYPE_CHECKING:
    from cas.store.content.sources import FileSource, Reader, Source

_log = logging.getLogger(__name__)

_WINDOW = 64
"""Files submitted ahead of the oldest result."""
_AT_ONCE = 4


class BlobIngestClient:
    """Has blobs stored; may be shared by threads.

    Args:
        calls: Makes the calls.
        facts: What the service said of itself.
    """

    def __init__(self, calls: Calls, facts: ServiceFacts) -> None:
        self._calls = calls
        self._facts = facts
        self._stub = blobs_pb2_grpc.BlobsStub(calls.channel)

    def ingest(
        self,
        path: Path,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        media_type: str | None = None,
        labels: Mapping[str, str] | None = None,
        move: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Store a file as a pinned blob; on return it is verified and durable.

        See :meth:`cas.store.content.blobs.Blobs.ingest` for what holds after a failure, for the
        arguments and for the errors. Idempotent.
        """
        from cas.store.content.sources import FileSource

        named = self._facts.path_for_service(path)
        if named is None:
            header = _header(repr(str(path)), digest, size, media_type, labels)
            return self._upload_file(FileSource(path), header, move, cancel, progress)
        request = blobs_pb2.IngestBlobRequest(
            path=str(named),
            digest=str(digest or ""),
            size=size,
            media_type=media_type or "",
            labels=labels,
            move=move,
        )
        outcome = self._calls.outcome(
            self._stub.Ingest,
            request,
            action=f"ingest {str(path)!r}",
            progress=progress,
            cancel=cancel,
        )
        return values.ingested(outcome.ingested)

    def ingest_stream(
        self,
        stream: "Reader",
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
        from cas.store.content.sources import StreamSource

        header = _header(name, digest, size, media_type, labels)
        return self._upload(StreamSource(stream, name), header, cancel, progress)

    def send_for_image(
        self,
        data: bytes,
        digest: Digest,
        *,
        media_type: str | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Store a blob until an image with it is loaded, and for a day at most.

        One that somebody has pinned stays pinned. Nothing is sent if the store holds it. Errors as
        of :meth:`ingest`.
        """
        from cas.store.content.sources import BytesSource

        header = _header(f"blob {digest}", digest, len(data), media_type, None)
        header.for_image = True
        source = BytesSource(data, header.name)
        return self._find(header, cancel) or self._upload(source, header, cancel, progress)

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

        def store(path: Path) -> Ingested:
            return self.ingest(
                path,
                media_type=media_type,
                labels=labels,
                move=move,
                cancel=stop,
                progress=progress,
            )

        with ThreadPoolExecutor(_AT_ONCE, "cas-ingest") as pool:
            window: deque[Future[Ingested]] = deque()
            try:
                for path in paths:
                    window.append(pool.submit(store, path))
                    if len(window) >= _WINDOW:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                # Whoever still works does so for nothing, the one that is waited for included.
                stop.set()
                for future in window:
                    future.cancel()

    def exists(self, digest: Digest) -> bool:
        """Whether the store holds the blob: a record and, where that can be seen, its file."""
        request = blobs_pb2.BlobExistsRequest(digest=str(digest))
        action = f"look for blob {digest}"
        return self._calls.unary(self._stub.Exists, request, action=action).exists

    def _upload_file(
        self,
        source: "FileSource",
        header: blobs_pb2.UploadBlobHeader,
        move: bool,  # noqa: FBT001 (handed on)
        cancel: Cancellation | None,
        progress: Progress,
    ) -> Ingested:
        from cas.store.content.hashing import holds

        result = self._find(header, cancel) or self._upload(source, header, cancel, progress)
        if move and not (holds(source, result.digest) and source.remove()):
            _log.warning("moved file stays, it is another one by now path=%s", source.path)
        return result

    def _find(
        self, header: blobs_pb2.UploadBlobHeader, cancel: Cancellation | None
    ) -> Ingested | None:
        """Pin a blob that is there already; nothing is read or sent then."""
        from cas.store.content.sources import BytesSource

        if header.digest and self.exists(Digest.parse(header.digest)):
            # It may be collected meanwhile, or have another size than it shall have.
            with suppress(IntegrityError):
                return self._upload(BytesSource(b""), header, cancel, NO_PROGRESS)
        return None

    def _upload(
        self,
        source: "Source",
        header: blobs_pb2.UploadBlobHeader,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> Ingested:
        from cas.rpc.client.reading import iter_pieces

        def produce(send: Send[blobs_pb2.UploadBlobRequest]) -> None:
            send(blobs_pb2.UploadBlobRequest(header=header))
            with closing(iter_pieces(source, progress)) as chunks:
                for chunk in chunks:
                    send(blobs_pb2.UploadBlobRequest(data=chunk))
            send(blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd()))

        action = f"ingest {source.name}"
        return values.ingested(
            self._calls.upload(self._stub.Upload, produce, action=action, cancel=cancel)
        )


def _header(
    name: str,
    digest: Digest | None,
    size: int | None,
    media_type: str | None,
    labels: Mapping[str, str] | None,
) -> blobs_pb2.UploadBlobHeader:
    return blobs_pb2.UploadBlobHeader(
        name=name,
        digest=str(digest or ""),
        size=size,
        media_type=media_type or "",
        labels=labels,
    )
