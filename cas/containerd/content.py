"""Blobs of one namespace: records, bytes, and the ways in."""

__all__ = ["ContentStore"]

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing

import grpc

from cas._gen.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import Transport
from cas.containerd.values import blob_info, checked_labels, instant, label_changes
from cas.containerd.write_stream import WRITE_ERRORS, WriteStream, open_stream
from cas.containerd.writer import Writer
from cas.errors import (
    AlreadyExistsError,
    BlobNotFoundError,
    CasError,
    CorruptBlobError,
    DigestMismatchError,
    IntegrityError,
    InvalidNameError,
    LeaseNotFoundError,
    LimitExceededError,
    LockTimeoutError,
    NotFoundError,
    UnavailableError,
)
from cas.model.digest import Digest
from cas.model.records import BlobInfo, IngestStatus, LeaseID

_logger = logging.getLogger(__name__)

_NO_BLOB = {grpc.StatusCode.NOT_FOUND: BlobNotFoundError}


class ContentStore:
    """The content of one namespace.

    Args:
        transport: Channel and namespace.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = content_pb2_grpc.ContentStub(transport.channel)

    def info(self, digest: Digest) -> BlobInfo:
        """Give a blob's record; its file may be gone even so.

        Raises:
            BlobNotFoundError: There is no record.
        """
        request = content_pb2.InfoRequest(digest=str(digest))
        with translated(f"find blob {digest}", nearer=_NO_BLOB, digest=digest):
            return blob_info(self._transport.unary(self._stub.Info, request).info)

    def iter_blobs(self, filters: Sequence[str] = ()) -> Iterator[BlobInfo]:
        """Yield the blobs that match any of the filters, in order of digest; all without one.

        Blobs under other algorithms than sha256 are left out with a warning: others put them
        there.
        """
        request = content_pb2.ListContentRequest(filters=filters)
        with translated("list blobs"):
            for answer in self._transport.stream(self._stub.List, request):
                for info in answer.info:
                    try:
                        value = blob_info(info)
                    except InvalidNameError:
                        _logger.warning("foreign blob left out digest=%s", info.digest)
                        continue
                    yield value

    def update_labels(self, digest: Digest, labels: Mapping[str, str | None]) -> BlobInfo:
        """Set labels, remove those that are None, leave the others.

        Raises:
            BlobNotFoundError: There is no such blob.
        """
        changed, mask = label_changes(labels)
        if not changed:
            return self.info(digest)
        request = content_pb2.UpdateRequest(
            info=content_pb2.Info(digest=str(digest), labels=changed), update_mask=mask
        )
        with translated(f"label blob {digest}", nearer=_NO_BLOB, digest=digest):
            return blob_info(self._transport.unary(self._stub.Update, request).info)

    def delete(self, digest: Digest) -> bool:
        """Remove a blob's record, whoever refers to it; its file goes with a collection.

        Returns:
            Whether there was a record. Idempotent.
        """
        request = content_pb2.DeleteContentRequest(digest=str(digest))
        try:
            with translated(f"delete blob {digest}", nearer=_NO_BLOB):
                self._transport.unary(self._stub.Delete, request)
        except BlobNotFoundError:
            return False
        return True

    def read(
        self, digest: Digest, *, offset: int = 0, size: int = 0
    ) -> Generator[bytes, None, None]:
        """Yield a blob's bytes as they are stored, in chunks of at most 1 MiB, unverified.

        Args:
            digest: The blob.
            offset: Where to begin.
            size: How much at most; 0 for everything.

        Raises:
            BlobNotFoundError: There is no such blob.
            CorruptBlobError: There is a record, but the file is gone.
            UsageError: ``offset`` is beyond the end.
        """
        request = content_pb2.ReadContentRequest(digest=str(digest), offset=offset, size=size)
        try:
            yield from self._read(digest, request)
        except BlobNotFoundError:
            # A file that is gone gives the same answer as a missing record.
            self.info(digest)
        else:
            return
        try:
            # And so does a blob that came in after the question.
            yield from self._read(digest, request)
        except BlobNotFoundError as error:
            self.info(digest)
            raise CorruptBlobError(
                f"blob {digest} is recorded, but its file is gone; run `cas check --fix`",
                digest=digest,
            ) from error

    def _read(
        self, digest: Digest, request: content_pb2.ReadContentRequest
    ) -> Generator[bytes, None, None]:
        with translated(f"read blob {digest}", nearer=_NO_BLOB, digest=digest):
            for answer in self._transport.stream(self._stub.Read, request):
                if answer.data:
                    yield answer.data

    def read_all(self, digest: Digest, *, limit: int) -> bytes:
        """Give a small blob whole, verified against its digest.

        Args:
            digest: The blob.
            limit: Bytes that it may have.

        Raises:
            LimitExceededError: It is larger.
            BlobNotFoundError: There is no such blob.
            CorruptBlobError: Its bytes are gone or differ from its digest.
        """
        with closing(self.read(digest, size=limit + 1)) as chunks:
            data = b"".join(chunks)
        if len(data) > limit:
            raise LimitExceededError(
                f"blob {digest} is larger than the {limit} bytes that it may have",
                digest=digest,
                expected=limit,
            )
        actual = Digest.of(data)
        if actual != digest:
            raise CorruptBlobError(
                f"blob {digest} holds bytes of digest {actual}; run `cas check --fix`",
                digest=digest,
                actual=actual,
            )
        return data

    def iter_ingests(self) -> Iterator[IngestStatus]:
        """Yield the writes that are neither committed nor aborted."""
        request = content_pb2.ListStatusesRequest()
        with translated("list ingests"):
            answer = self._transport.unary(self._stub.ListStatuses, request)
        for status in answer.statuses:
            yield _ingest(status)

    def abort(self, ref: str) -> bool:
        """Drop a write and its bytes. Idempotent.

        Returns:
            Whether there was one.
        """
        try:
            with translated(f"abort ingest {ref}"):
                self._transport.unary(self._stub.Abort, content_pb2.AbortRequest(ref=ref))
        except NotFoundError:
            return False
        return True

    def open_writer(self, ref: str, lease: LeaseID, *, total: int | None) -> Writer:
        """Begin a write, or go on with the one that an earlier caller left under this ref.

        containerd hashes what is there before it answers, holding up every other writer of
        metadata: 3 to 5 seconds per GiB.

        Args:
            ref: Names the write in its namespace; one writer at a time.
            lease: Keeps its bytes until the commit, and the blob after it.
            total: Bytes that it will have. A write left under another total is dropped.

        Raises:
            LockTimeoutError: Another stream writes this ref.
            LeaseNotFoundError: There is no such lease.
            NoSpaceError: The file system is full.
        """
        self._drop_unless_total(ref, total or 0)
        request = content_pb2.WriteContentRequest(
            action=content_pb2.WriteAction.STAT, ref=ref, total=total or 0
        )
        stream, status = self._open(request, lease)
        return Writer(stream, ref, status)

    def put(
        self,
        ref: str,
        lease: LeaseID,
        data: bytes,
        expected: Digest,
        labels: Mapping[str, str],
    ) -> bool:
        """Store a small blob with one message; after a failure nothing is left under the ref.

        Args:
            ref: Names the write; nothing may have been written under it.
            lease: Holds the blob afterwards, also if it existed.
            data: All of it, at most 15 MiB.
            expected: Its digest.
            labels: Stored with it; dropped if it existed.

        Returns:
            True if this call made the blob, False if it existed.

        Raises:
            DigestMismatchError: ``data`` has another digest.
            LeaseNotFoundError: There is no such lease.
            NoSpaceError: The file system is full.
        """
        request = content_pb2.WriteContentRequest(
            action=content_pb2.WriteAction.COMMIT,
            ref=ref,
            total=len(data),
            expected=str(expected),
            data=data,
            labels=checked_labels(labels),
        )
        try:
            stream, _ = self._open(request, lease)
            _end(stream, ref)
        except AlreadyExistsError:
            return False
        except CasError as error:
            self._clean_up(ref, error)
            actual = Digest.of(data)
            if isinstance(error, IntegrityError) and actual != expected:
                raise DigestMismatchError(
                    f"content has digest {actual}, expected {expected}",
                    expected=expected,
                    actual=actual,
                ) from error
            raise
        return True

    def adopt(
        self, ref: str, lease: LeaseID, digest: Digest, size: int, labels: Mapping[str, str]
    ) -> bool:
        """Register a file of the blobs directory, which the caller has verified, as a blob.

        Relies on content sharing: containerd takes a file that is there for one that another
        namespace has committed, and hashes nothing.

        Args:
            ref: Names the write; fresh.
            lease: Holds the blob from the first message on.
            digest: The file's name.
            size: The file's size in bytes.
            labels: Stored with the blob, also if it existed.

        Returns:
            True if the blob is registered now; False if containerd does not see the file (a
            collection may have removed it): nothing is left then.

        Raises:
            LeaseNotFoundError: There is no such lease.
        """
        request = content_pb2.WriteContentRequest(
            action=content_pb2.WriteAction.STAT, ref=ref, total=size, expected=str(digest)
        )
        try:
            stream, status = self._open(request, lease)
            with Writer(stream, ref, status) as writer:
                if writer.offset != size or writer.digest != digest:
                    return self._not_seen(writer, ref)
                writer.commit(size, digest, labels)
        except AlreadyExistsError:
            # The first message named the digest, so the lease holds the blob.
            self.update_labels(digest, labels)
        return True

    def _not_seen(self, writer: Writer, ref: str) -> bool:
        writer.close()
        self.abort(ref)
        return False

    def _drop_unless_total(self, ref: str, total: int) -> None:
        # containerd would begin at offset 0 without dropping the old bytes, and refuse the
        # commit of anything shorter.
        request = content_pb2.StatusRequest(ref=ref)
        try:
            with translated(f"find ingest {ref}"):
                status = self._transport.unary(self._stub.Status, request).status
        except NotFoundError:
            return
        if status.total != total:
            self.abort(ref)

    def _open(
        self, request: content_pb2.WriteContentRequest, lease: LeaseID
    ) -> tuple[WriteStream, content_pb2.WriteContentResponse]:
        return open_stream(self._stub, self._transport.metadata(lease), request)

    def _clean_up(self, ref: str, error: CasError) -> None:
        if isinstance(error, UnavailableError | LockTimeoutError | LeaseNotFoundError):
            return
        try:
            self.abort(ref)
        except CasError as second:
            error.add_note(f"the write {ref} could not be dropped either: {second}")


def _end(stream: WriteStream, ref: str) -> None:
    with translated(f"end write {ref}", nearer=WRITE_ERRORS):
        stream.end()


def _ingest(status: content_pb2.Status) -> IngestStatus:
    return IngestStatus(
        ref=status.ref,
        offset=status.offset,
        total=status.total,
        started=instant(status.started_at),
        updated=instant(status.updated_at),
    )
