"""The event bus of containerd: what happens in a namespace, whichever process does it.

containerd itself tells of images and of blobs that are deleted; what it knows nothing of is
published into the same bus by whoever does it. The bus has no memory and gives no promise: a
listener that comes late, or is too slow, has to look for itself.
"""

__all__ = ["Events"]

import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue

from cas._gen.containerd.events import content_pb2, image_pb2
from cas._gen.containerd.services.events.v1 import events_pb2, events_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import ANSWER_SECONDS, Transport
from cas.containerd.values import instant, quoted
from cas.errors import CasError, DaemonUnavailableError, DeadlineExceededError, EventsLostError
from cas.model.cancellation import Cancellation
from cas.model.events import Event, EventKind

if TYPE_CHECKING:
    import grpc

_log = logging.getLogger(__name__)

_OURS = "/cas/"
"""Topics of ours: this and a kind, or this and the word of a listener."""
_LISTENING = "listening"
_TOPICS = "^/(images|content|cas)/"
_TYPE_URL = "google.protobuf.ListValue"
"""containerd's events have no host before the name either."""

_PUBLISH_SECONDS = 2.0
"""Nobody waits longer for an event to be told: a frozen containerd shows in real calls."""
_NAMES_PER_EVENT = 1000
_BACKLOG = 4096
"""Events that wait for a slow listener; more are given up, for the daemon keeps any number."""
_POLL_SECONDS = 0.1

_ImageEvent = type[image_pb2.ImageCreate | image_pb2.ImageUpdate | image_pb2.ImageDelete]
_IMAGES: dict[str, tuple[EventKind, _ImageEvent]] = {
    "/images/create": (EventKind.IMAGE_CREATED, image_pb2.ImageCreate),
    "/images/update": (EventKind.IMAGE_UPDATED, image_pb2.ImageUpdate),
    "/images/delete": (EventKind.IMAGE_REMOVED, image_pb2.ImageDelete),
}
_CONTENT_DELETE = "/content/delete"


class Events:
    """The events of one namespace.

    Args:
        transport: Channel and namespace.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = events_pb2_grpc.EventsStub(transport.channel)

    def publish(self, kind: EventKind, names: Iterable[str]) -> None:
        """Tell of something that containerd knows nothing of; never fails what happened.

        Args:
            kind: What happened.
            names: To what; any number.
        """
        remaining = iter(names)
        try:
            while group := list(islice(remaining, _NAMES_PER_EVENT)):
                self._publish(kind, group, seconds=_PUBLISH_SECONDS)
        except CasError as error:
            _log.info("event not published kind=%s error=%s", kind, error)

    @contextmanager
    def subscribe(self, cancel: Cancellation) -> Iterator[Iterator[Event]]:
        """Listen, as long as the context lasts: what happens from its beginning on is told.

        Args:
            cancel: Ends the iteration; a thread that waits for an event notices in a moment.

        Yields:
            The events in their order. The iteration raises ``EventsLostError`` if its caller is
            too slow, and ``DaemonUnavailableError`` when containerd ends.

        Raises:
            DaemonUnavailableError: containerd does not answer.
            DeadlineExceededError: It takes the subscription and tells nothing.
        """
        filters = [f"namespace=={quoted(self._transport.namespace)},topic~={quoted(_TOPICS)}"]
        call = self._stub.Subscribe(
            events_pb2.SubscribeRequest(filters=filters), metadata=self._transport.metadata()
        )
        subscription = _Subscription(call)
        try:
            self._await_listening(subscription)
            yield subscription.iter_events(cancel)
        finally:
            subscription.close()

    def _await_listening(self, subscription: "_Subscription") -> None:
        """Talk to ourselves until we hear it: containerd does not say when it has subscribed us."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not subscription.hears_itself():
            if time.monotonic() > deadline:
                raise DeadlineExceededError("containerd takes a subscription and tells no events")
            self._publish(_LISTENING, [subscription.token], seconds=ANSWER_SECONDS)

    def _publish(self, topic: str, names: list[str], *, seconds: float) -> None:
        value = ListValue()
        value.extend(names)
        event = Any(type_url=_TYPE_URL, value=value.SerializeToString())
        request = events_pb2.PublishRequest(topic=f"{_OURS}{topic}", event=event)
        with translated(f"publish event {topic}"):
            self._transport.unary(self._stub.Publish, request, seconds=seconds)


class _Subscription:
    """One stream of events, read by a thread of its own so that containerd need not keep them."""

    def __init__(self, call: "grpc._CallIterator[events_pb2.Envelope]") -> None:
        self.token = secrets.token_hex(8)
        self._call = call
        self._events: queue.Queue[Event] = queue.Queue(_BACKLOG)
        self._listening = threading.Event()
        self._ended = threading.Event()
        self._error: CasError | None = None
        self._reader = threading.Thread(target=self._read, name="cas-events", daemon=True)
        self._reader.start()

    def hears_itself(self) -> bool:
        """Wait a moment for the token; False if it has not come.

        Raises:
            DaemonUnavailableError: The stream has ended.
        """
        if self._listening.wait(_POLL_SECONDS):
            return True
        if self._ended.is_set():
            raise self._reason()
        return False

    def iter_events(self, cancel: Cancellation) -> Iterator[Event]:
        """Yield events until ``cancel`` is set or the stream ends."""
        while not cancel.is_set():
            ended = self._ended.is_set()
            try:
                yield self._events.get(timeout=0 if ended else _POLL_SECONDS)
            except queue.Empty:
                if ended:
                    raise self._reason() from None

    def close(self) -> None:
        """End the stream."""
        self._call.cancel()
        self._reader.join()

    def _reason(self) -> CasError:
        return self._error or DaemonUnavailableError("containerd has ended the stream of events")

    def _read(self) -> None:
        try:
            with translated("listen for events"):
                for envelope in self._call:
                    self._take(envelope)
        except CasError as error:
            self._error = error
        except queue.Full:
            self._call.cancel()
            self._error = EventsLostError(
                f"more than {_BACKLOG} events were waiting for a listener; list what is there and "
                "listen again, faster"
            )
        finally:
            self._ended.set()

    def _take(self, envelope: events_pb2.Envelope) -> None:
        if envelope.topic == f"{_OURS}{_LISTENING}":
            if self.token in _names(envelope):
                self._listening.set()
            return
        for event in _events(envelope):
            self._events.put_nowait(event)


def _events(envelope: events_pb2.Envelope) -> Iterator[Event]:
    time = instant(envelope.timestamp)
    try:
        for kind, name in _told(envelope):
            yield Event(time, kind, name)
    except (DecodeError, ValueError):
        _log.debug("foreign event left out topic=%s", envelope.topic)


def _told(envelope: events_pb2.Envelope) -> Iterator[tuple[EventKind, str]]:
    topic, value = envelope.topic, envelope.event.value
    if topic in _IMAGES:
        kind, message = _IMAGES[topic]
        yield kind, message.FromString(value).name
    elif topic == _CONTENT_DELETE:
        yield EventKind.BLOB_REMOVED, content_pb2.ContentDelete.FromString(value).digest
    elif topic.startswith(_OURS):
        kind = EventKind(topic.removeprefix(_OURS))
        yield from ((kind, name) for name in _names(envelope))


def _names(envelope: events_pb2.Envelope) -> list[str]:
    values = ListValue.FromString(envelope.event.value).values
    return [value.string_value for value in values]
