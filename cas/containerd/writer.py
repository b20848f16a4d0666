"""An open write of one blob.

Invariants: the true offset is always sent, because a commit at offset 0 truncates; ``expected``
is sent only with the commit, because in an earlier message it makes containerd take over bytes
that nobody verified.
"""

__all__ = ["Writer"]

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import grpc

from cas._gen.containerd.services.content.v1 import content_pb2
from cas.containerd.translation import translated
from cas.containerd.values import checked_labels
from cas.containerd.write_stream import WRITE_ERRORS, WriteStream
from cas.errors import (
    AlreadyExistsError,
    DigestMismatchError,
    SizeMismatchError,
)
from cas.model.digest import Digest

_WINDOW = 4
"""Messages on the way at once: containerd writes one while the next is sent."""


class Writer:
    """A blob on its way in; close it, or use it as a context manager.

    What was written stays with the ref until it is committed, aborted, or the lease ends, and
    opening the ref again goes on where it stopped. Not for several threads at once.

    Args:
        stream: Opened with the first answer read.
        ref: Names the write in messages.
        status: The first answer.
    """

    def __init__(
        self, stream: WriteStream, ref: str, status: content_pb2.WriteContentResponse
    ) -> None:
        self._stream = stream
        self._ref = ref
        self._offset = status.offset
        self._server_digest = status.digest
        self._open = True

    @property
    def offset(self) -> int:
        """Bytes written so far, those of earlier opens of the ref included."""
        return self._offset

    @property
    def digest(self) -> Digest | None:
        """What containerd hashed so far; waits until it has everything. None if it does not say."""
        with translated(f"write {self._ref}", nearer=WRITE_ERRORS):
            self._settle(0)
        return Digest.parse(self._server_digest) if self._server_digest else None

    def write(self, data: bytes) -> int:
        """Append; returns when at most a few MiB are on the way.

        Returns:
            The number of bytes taken, which is all of them.

        Raises:
            NoSpaceError: The file system is full; the ref keeps what it has.
            DaemonUnavailableError: The connection broke; the ref keeps what it has.
        """
        if data:
            self._send(content_pb2.WriteAction.WRITE, data)
            self._offset += len(data)
            with translated(f"write {self._ref}", nearer=WRITE_ERRORS):
                self._settle(_WINDOW)
        return len(data)

    def restart(self) -> None:
        """Drop what was written: the offset is 0 afterwards. Idempotent."""
        with translated(f"restart write {self._ref}", nearer=WRITE_ERRORS):
            self._settle(0)
            if self._offset:
                # Without data, because the answer's offset is wrong when both come together.
                self._offset = 0
                self._send(content_pb2.WriteAction.WRITE, b"")
                self._settle(0)

    def commit(self, size: int, expected: Digest, labels: Mapping[str, str]) -> bool:
        """Publish the blob under its digest and end the stream.

        After a mismatch nothing is visible, the stream is ended and the ref keeps its bytes:
        abort it.

        Args:
            size: Bytes that must have been written.
            expected: Digest they must have.
            labels: Stored in the same transaction; dropped if the blob exists.

        Returns:
            True if this commit made the blob; False if it existed. It is then not held by the
            lease unless somebody added it there.

        Raises:
            SizeMismatchError: Another number of bytes was written.
            DigestMismatchError: They have another digest.
            IntegrityError: containerd found that its file is not what was written.
        """
        checked = checked_labels(labels)
        try:
            self._require(size, expected)
            with translated(f"commit blob {expected} from {self._ref}", nearer=WRITE_ERRORS):
                self._send(
                    content_pb2.WriteAction.COMMIT,
                    b"",
                    total=size,
                    expected=str(expected),
                    labels=checked,
                )
                self._settle(0)
        except AlreadyExistsError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """End the stream; afterwards the ref can be opened again. Idempotent, never raises."""
        if self._open:
            self._open = False
            # A stream that has ended by an error ends by it again; the call that met it raised it.
            try:
                with suppress(grpc.RpcError):
                    self._stream.end()
            finally:
                self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._open:
            # Not worth waiting for what is on the way.
            self._open = False
            self._stream.cancel()
        self.close()

    def _require(self, size: int, expected: Digest) -> None:
        if self._offset != size:
            raise SizeMismatchError(
                f"blob {expected} should have {size} bytes, {self._offset} were written",
                digest=expected,
                expected=size,
                actual=self._offset,
            )
        actual = self.digest
        if actual is not None and actual != expected:
            raise DigestMismatchError(
                f"content of {self._ref} has digest {actual}, expected {expected}",
                expected=expected,
                actual=actual,
            )

    def _send(
        self,
        action: content_pb2.WriteAction.ValueType,
        data: bytes,
        *,
        total: int = 0,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._stream.send(
            content_pb2.WriteContentRequest(
                action=action,
                ref=self._ref,
                offset=self._offset,
                data=data,
                total=total,
                expected=expected,
                labels=labels,
            )
        )

    def _settle(self, leave: int) -> None:
        response = self._stream.receive(leave=leave)
        if response is not None:
            self._server_digest = response.digest
