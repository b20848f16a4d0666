"""One channel to containerd and the way every call goes out on it.

A call carries the namespace, the lease if there is one, and a deadline. Requests are checked for
unset sub-messages, because containerd 1.7 and later dereference them and die.
"""

__all__ = [
    "ANSWER_SECONDS",
    "COLLECTION_SECONDS",
    "METADATA_SECONDS",
    "STREAM_SECONDS",
    "Transport",
    "complete",
    "open_channel",
]

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import grpc
from google.protobuf.message import Message

from cas.containerd.patience import ending_with_operation, patient_seconds
from cas.model.cancellation import current_operation
from cas.model.records import LeaseID

ANSWER_SECONDS = 30.0
"""Deadline of a call that only asks whether containerd answers: nothing can hold it up for long."""

METADATA_SECONDS = 900.0
"""Deadline of a call that touches metadata. containerd has one writer at a time, and one that
resumes an ingest hashes what is there before it lets go: 60 GiB at 100 MB/s take ten minutes."""

COLLECTION_SECONDS = 3600.0
"""Deadline of a call that waits for a garbage collection, which deletes files."""

STREAM_SECONDS = 24 * 3600.0
"""Deadline of a call that moves content: bounds a hang, not a speed."""

_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest answer: a list of images comes as one message. The config allows the server as much."""

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # The default back-off grows to two minutes: a restarted daemon would seem dead for so long.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    # Otherwise channels of one process share connections, and the back-off of dead ones.
    # Fixed windows: a stream whose reader is slow would come to hold some MiB more.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
)

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


def open_channel(socket: Path) -> grpc.Channel:
    """Make a channel; nothing is connected yet, and a lost connection comes back by itself."""
    return grpc.insecure_channel(f"unix://{quote(str(socket))}", options=_CHANNEL_OPTIONS)


@dataclass(frozen=True, slots=True)
class Transport:
    """A channel seen from one namespace; safe to share between threads.

    Args:
        channel: The channel.
        namespace: Sent with every call.
        seconds: Deadline of a call that names none.
    """

    channel: grpc.Channel
    namespace: str
    seconds: float = METADATA_SECONDS

    def in_namespace(self, namespace: str) -> "Transport":
        """Give the same channel for another namespace."""
        return replace(self, namespace=namespace)

    def with_deadline(self, seconds: float) -> "Transport":
        """Give the same channel with another deadline."""
        return replace(self, seconds=seconds)

    def metadata(self, lease: LeaseID | None = None) -> tuple[tuple[str, str], ...]:
        """Give the headers of a call, under a lease if one is given."""
        headers = (("containerd-namespace", self.namespace),)
        return headers if lease is None else (*headers, ("containerd-lease", lease))

    def unary(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        lease: LeaseID | None = None,
        seconds: float | None = None,
        looks: bool = False,
    ) -> _Response:
        """Call and wait for the answer, at most ``seconds``.

        One that only ``looks`` ends as soon as somebody wants its operation stopped.
        """
        timeout = patient_seconds(self.seconds if seconds is None else seconds)
        headers = self.metadata(lease)
        if current_operation() is None:
            # Half the work of a call that can be ended by somebody else.
            return method(complete(request), timeout=timeout, metadata=headers)
        call = method.future(complete(request), timeout=timeout, metadata=headers)
        with ending_with_operation(call, looks=looks):
            return call.result()

    def stream(
        self,
        method: "grpc.UnaryStreamMultiCallable[_Request, _Response]",
        request: _Request,
        *,
        seconds: float = STREAM_SECONDS,
    ) -> Iterator[_Response]:
        """Call and yield the answers; the call is cancelled when the iterator is closed."""
        timeout = patient_seconds(seconds)
        call = method(complete(request), timeout=timeout, metadata=self.metadata())
        try:
            with ending_with_operation(call):
                yield from call
        finally:
            call.cancel()


def complete(message: _Request) -> _Request:
    """Give the message back if no sub-message in it is unset.

    Timestamps, which only answers fill, and fields declared ``optional`` may be unset.

    Raises:
        ValueError: A sub-message is unset; a mistake in this package.
    """
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None or field.is_repeated:
            continue
        if message.HasField(field.name):
            complete(getattr(message, field.name))
        elif not (
            field.containing_oneof or field.message_type.full_name == "google.protobuf.Timestamp"
        ):
            raise ValueError(f"{message.DESCRIPTOR.full_name} lacks {field.name}")
    return message
