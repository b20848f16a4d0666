"""Messages on their way from the thread that makes them to gRPC's sending thread.

Whoever makes them keeps his own thread: he meets his own errors and Ctrl-C there, and gRPC, which
writes a traceback of everything that goes wrong while it asks for a message, never meets them.
"""

__all__ = ["AnsweredError", "Feed", "Send"]

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cas.model.cancellation import Cancellation

if TYPE_CHECKING:
    import grpc

_LOOK_SECONDS = 0.2
"""How often a wait looks whether the call has ended or its caller has asked to stop."""
_AHEAD = 2
"""Messages that wait to be sent; of 1 MiB each at most."""

_Request = TypeVar("_Request")
Send = Callable[[_Request], None]
"""Sends a message of a stream; blocks while the service is behind."""


class AnsweredError(Exception):
    """The call has ended although not everything was sent."""


class Feed(Generic[_Request]):
    """The messages of one call; gRPC iterates over it."""

    def __init__(self) -> None:
        self._requests: Queue[_Request | None] = Queue(_AHEAD)

    def __iter__(self) -> Iterator[_Request]:
        return iter(self._requests.get, None)

    def put(
        self, request: _Request | None, call: "grpc.Future[Any]", cancel: Cancellation | None
    ) -> None:
        """Wait for room and queue a message; None ends the stream.

        Raises:
            AnsweredError: The call has ended.
            InterruptedOperationError: ``cancel`` was set.
        """
        while not call.done():
            if cancel is not None:
                cancel.check()
            with suppress(Full):
                self._requests.put(request, timeout=_LOOK_SECONDS)
                return
        raise AnsweredError

    def abandon(self) -> None:
        """Let gRPC's thread end, which waits for a next message until it gets one."""
        with suppress(Full):
            self._requests.put_nowait(None)
