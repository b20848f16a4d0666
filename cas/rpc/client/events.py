"""What happens in a store, told by the service; see :class:`cas.containerd.events.Events`."""

__all__ = ["EventsClient"]

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager

from cas._gen.cas.v1 import store_pb2, store_pb2_grpc
from cas.errors import InterruptedOperationError, ServiceUnavailableError
from cas.model.cancellation import Cancellation
from cas.model.events import Event, EventKind
from cas.rpc.client.calls import Calls
from cas.rpc.values import instant, member


class EventsClient:
    """The events of a service's store.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = store_pb2_grpc.StoreStub(calls.channel)

    @contextmanager
    def subscribe(
        self, cancel: Cancellation, *, kinds: Iterable[EventKind] = ()
    ) -> Iterator[Iterator[Event]]:
        """Listen, as long as the context lasts: what happens from its beginning on is told.

        Args:
            cancel: Ends the iteration, from any thread, within a moment.
            kinds: What to tell of; empty for everything.

        Yields:
            The events in their order. The iteration raises ``EventsLostError`` if its caller is
            too slow, and ``UnavailableError`` when the service or its containerd ends.

        Raises:
            UnavailableError: The service or its containerd does not answer.
        """
        request = store_pb2.EventsRequest(kinds=kinds)
        with closing(
            self._calls.stream(
                self._stub.Events, request, action="listen for events", cancel=cancel
            )
        ) as answers:
            if next(answers, None) is None:
                raise ServiceUnavailableError("the service does not tell any events")
            yield _events(answers, cancel)


def _events(
    answers: Generator[store_pb2.Event, None, None], cancel: Cancellation
) -> Iterator[Event]:
    try:
        for answer in answers:
            if answer.kind:
                kind = member(EventKind, answer.kind)
                yield Event(instant(answer.time), kind, answer.object)
    except InterruptedOperationError:
        if not cancel.is_set():
            raise
