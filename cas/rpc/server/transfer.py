"""Bytes between a caller and the library: what is sent to us to be read, what we write to be sent.

Both hold no more than a few pieces, however slow the other side is.
"""

__all__ = ["MAX_NAME", "UploadedBytes", "first_message", "pieces", "written"]

import queue
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

from cas._gen.cas.v1 import blobs_pb2, images_pb2
from cas.errors import UsageError
from cas.model.cancellation import Cancellation
from cas.rpc.limits import PIECE_BYTES
from cas.rpc.server.call import Call
from cas.rpc.server.gate import Gate
from cas.store.image.archives.tar_writer import Writable
from cas.store.workers import WorkerPool

MAX_NAME = 512
"""Characters of what a caller calls its bytes that messages and the log repeat."""

_POLL_SECONDS = 0.1
_QUEUED_PIECES = 2
_GATHERED_BYTES = PIECE_BYTES // 4
"""Small writes, such as headers of a tar, travel together."""


_Step = blobs_pb2.UploadBlobRequest | images_pb2.UploadImageRequest
_Request = TypeVar("_Request", blobs_pb2.UploadBlobRequest, images_pb2.UploadImageRequest)


def first_message(requests: Iterator[_Request]) -> _Request:
    """Give the header that an upload begins with.

    Raises:
        UsageError: There is none.
    """
    first = next(requests, None)
    if first is None or first.WhichOneof("step") != "header":
        raise UsageError("an upload begins with a header; this one does not")
    return first


class UploadedBytes:
    """The pieces of an upload, read as a file.

    Args:
        requests: What follows the header.
    """

    def __init__(
        self,
        requests: Iterator[blobs_pb2.UploadBlobRequest] | Iterator[images_pb2.UploadImageRequest],
    ) -> None:
        self._requests: Iterator[_Step] = requests
        self._rest = memoryview(b"")
        self._ended = False

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, none at the end only.

        Raises:
            UsageError: A piece is too large, something else than a piece came, or the stream ended
                without saying that it was complete.
            InterruptedOperationError: The caller went away.
        """
        while not self._rest and not self._ended:
            message = next(self._requests, None)
            if message is None:
                # Of a call that was cancelled, the end of the stream may come before the news.
                raise UsageError("an upload ends with a message that says so; this one broke off")
            if message.WhichOneof("step") == "end":
                self._ended = True
                break
            self._rest = memoryview(_piece(message))
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def _piece(message: _Step) -> bytes:
    if message.WhichOneof("step") != "data":
        raise UsageError("after the header of an upload only data and its end may come")
    if len(message.data) > PIECE_BYTES:
        raise UsageError(
            f"a piece of {len(message.data)} bytes is larger than {PIECE_BYTES} bytes; send "
            "smaller ones",
            actual=len(message.data),
            expected=PIECE_BYTES,
        )
    return message.data


def pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut chunks into what travels in one message."""
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            yield chunk[start : start + PIECE_BYTES]


def written(
    call: Call, workers: WorkerPool, gate: Gate, work: Callable[[Writable], object]
) -> Generator[bytes, None, None]:
    """Yield what the work writes, in pieces of at most 256 KiB.

    Args:
        call: The call that it is done for.
        workers: Where it is done.
        gate: What it has to pass first; it holds its place at the caller's pace.
        work: Is given something to write to.

    Raises:
        Whatever the work raises, after what it had written.
    """
    pipe = _Pipe(call.cancellation)

    def act() -> None:
        with call.holding(gate):
            work(pipe)
            pipe.flush()

    future = workers.submit(act)
    try:
        yield from pipe.pieces(future)
        future.result()
    finally:
        if not future.done():
            call.cancellation.set()
            wait([future])


class _Pipe:
    """Written by the work, read by the thread that serves the call."""

    def __init__(self, cancel: Cancellation) -> None:
        self._cancel = cancel
        self._gathered = bytearray()
        self._queue: queue.Queue[bytes] = queue.Queue(_QUEUED_PIECES)

    def write(self, data: bytes, /) -> int:
        """Take all of the data, waiting for the reader.

        Raises:
            InterruptedOperationError: The caller went away.
        """
        if len(data) >= _GATHERED_BYTES:
            self.flush()
            for piece in pieces([data]):
                self._put(piece)
        else:
            self._gathered += data
            if len(self._gathered) >= _GATHERED_BYTES:
                self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand over what is gathered."""
        if self._gathered:
            data, self._gathered = bytes(self._gathered), bytearray()
            self._put(data)

    def pieces(self, future: "Future[None]") -> Iterator[bytes]:
        """Yield what is written until the work is done."""
        while True:
            done = future.done()
            try:
                yield self._queue.get(timeout=0 if done else _POLL_SECONDS)
            except queue.Empty:
                if done:
                    return

    def _put(self, piece: bytes) -> None:
        while True:
            self._cancel.check()
            try:
                self._queue.put(piece, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
