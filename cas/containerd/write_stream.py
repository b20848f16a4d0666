"""One Write call: messages out, answers in, and how it begins.

The stream is always ended, because an open one keeps its ref locked. A ref that somebody else
has open is waited for, but not for long.
"""

__all__ = ["WRITE_ERRORS", "WriteStream", "open_stream"]

import time
from collections.abc import Mapping
from contextlib import ExitStack
from queue import SimpleQueue

import grpc

from cas._gen.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from cas.containerd.patience import ending_with_operation, patient_seconds
from cas.containerd.translation import RefLockedError, translated
from cas.containerd.transport import STREAM_SECONDS
from cas.errors import (
    CasError,
    DaemonError,
    IntegrityError,
    LeaseNotFoundError,
    LockTimeoutError,
)

WRITE_ERRORS: Mapping[grpc.StatusCode, type[CasError]] = {
    # Nothing but the lease can be missing: a ref is made by writing to it.
    grpc.StatusCode.NOT_FOUND: LeaseNotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: IntegrityError,
    grpc.StatusCode.OUT_OF_RANGE: DaemonError,
}
"""What the codes mean for a write, where they mean something else than elsewhere."""

_REF_LOCK_SECONDS = 5.0
"""How long to wait for a ref: a stream that broke off frees it within milliseconds."""
_REF_LOCK_PAUSE_SECONDS = 0.05
"""Between two attempts; containerd 1.x holds up all other writers during an attempt."""


class WriteStream:
    """One Write call, speaking gRPC's errors.

    Args:
        stub: The content service.
        metadata: Headers with namespace and lease.
    """

    def __init__(
        self, stub: content_pb2_grpc.ContentStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self._requests: SimpleQueue[content_pb2.WriteContentRequest | None] = SimpleQueue()
        self._unanswered = 0
        self._call = stub.Write(
            iter(self._requests.get, None),
            metadata=metadata,
            timeout=patient_seconds(STREAM_SECONDS),
        )
        self._watch = ExitStack()
        self._watch.enter_context(ending_with_operation(self._call))

    def send(self, request: content_pb2.WriteContentRequest) -> None:
        """Queue a message."""
        self._requests.put(request)
        self._unanswered += 1

    def receive(self, *, leave: int = 0) -> content_pb2.WriteContentResponse | None:
        """Wait until at most ``leave`` messages are unanswered.

        Returns:
            The last answer that came; None if none had to be waited for.
        """
        response = None
        while self._unanswered > leave:
            response = next(self._call, None)
            if response is None:
                raise DaemonError("containerd ended a write without an answer")
            self._unanswered -= 1
        return response

    def end(self) -> None:
        """End the stream and wait until containerd has let go of the ref."""
        self._requests.put(None)
        with self._watch:
            # containerd repeats its last answer at the end.
            for _ in self._call:
                pass

    def cancel(self) -> None:
        """Break the stream off; containerd lets go of the ref some milliseconds after."""
        self._call.cancel()
        self._watch.close()
        # gRPC's sending thread waits for the next message until it gets one.
        self._requests.put(None)


def open_stream(
    stub: content_pb2_grpc.ContentStub,
    metadata: tuple[tuple[str, str], ...],
    first: content_pb2.WriteContentRequest,
) -> tuple[WriteStream, content_pb2.WriteContentResponse]:
    """Begin a write and give its first answer; waits a while for a ref that is open elsewhere.

    Args:
        stub: The content service.
        metadata: Headers with namespace and lease.
        first: The first message, which decides on ref, total and expected.

    Raises:
        LockTimeoutError: Another stream writes this ref.
        LeaseNotFoundError: There is no such lease.
        NoSpaceError: The file system is full.
    """
    deadline = time.monotonic() + _REF_LOCK_SECONDS
    while True:
        try:
            return _open_once(stub, metadata, first)
        except RefLockedError as error:
            if time.monotonic() > deadline:
                raise LockTimeoutError(
                    f"somebody else has been writing {first.ref} for "
                    f"{_REF_LOCK_SECONDS:.0f} seconds; wait for them and try again",
                    ref=first.ref,
                ) from error
        time.sleep(_REF_LOCK_PAUSE_SECONDS)


def _open_once(
    stub: content_pb2_grpc.ContentStub,
    metadata: tuple[tuple[str, str], ...],
    first: content_pb2.WriteContentRequest,
) -> tuple[WriteStream, content_pb2.WriteContentResponse]:
    stream = WriteStream(stub, metadata)
    try:
        with translated(f"open write {first.ref}", nearer=WRITE_ERRORS):
            stream.send(first)
            response = stream.receive()
    except BaseException:
        stream.cancel()
        raise
    if response is None:
        raise DaemonError(f"containerd did not answer to the write {first.ref}")
    return stream, response
