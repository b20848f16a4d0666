"""One running call, as servicer, dispatcher and registry see it."""

__all__ = ["Call", "Turn"]

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, cast

import grpc

from cas.errors import CasError
from cas.model.cancellation import Cancellation
from cas.rpc.server.gate import Gate
from cas.rpc.status import bare_status

_CALL_KEY = "cas-call"
"""Metadata by which a caller names its call; see ``Store.Wait`` in store.proto."""
_SLOWEST_BYTES = 8 * 1024
"""Per second: less than the slowest link of a device. A caller who sends this much keeps nobody
waiting."""


class Turn(Enum):
    """What a caller is waited for to do."""

    READ = "read"
    SEND = "send"


class Call:
    """A call that somebody made.

    Args:
        method: As in ``/cas.v1.Blobs/Get``.
        context: gRPC's side of it.

    Attributes:
        cancellation: Set when the caller goes away, gives up, or its deadline is over.
        key: How the caller named it; empty if not.
        guarded: Whether it works on what is in the vault.
        has_begun: Whether its first message has come.
        object: What it is about, as its request says; empty if that names nothing.
        turn: What its caller was last waited for to do.
        broken_off: Why the service ended it; None if it did not, or said nothing.
    """

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self.method = method
        self.cancellation = Cancellation()
        self.key = _key(context)
        self.guarded = False
        self.has_begun = False
        self.object = ""
        self.turn = Turn.SEND
        self.broken_off: CasError | None = None
        self._is_in_grpc = False
        self._places = 0
        self._context = context
        self._waited = 0.0
        self._at_peer_since: float | None = None
        self._left_peer_at = time.monotonic()
        if not context.add_callback(self.cancellation.set):
            self.cancellation.set()  # it has ended already

    @contextmanager
    def holding(self, gate: Gate) -> Iterator[None]:
        """Hold a place for work that goes at the caller's pace; see :meth:`seconds_at_peer`.

        Raises:
            InterruptedOperationError: The caller went away while waiting for the place.
        """
        with gate.entered(self.cancellation):
            self._places += 1
            try:
                yield
            finally:
                self._places -= 1

    @property
    def holds_place(self) -> bool:
        """Whether it holds a place for work that goes at the caller's pace."""
        return self._places > 0

    @contextmanager
    def at_peer(self, turn: Turn, *, in_grpc: bool) -> Iterator[None]:
        """Note, as long as the context lasts, that it is the caller's turn.

        Args:
            turn: To do what.
            in_grpc: The caller is waited for within gRPC's library, and not by a look at
                ``cancellation`` now and then.
        """
        begun = time.monotonic()
        # As long as the caller waits for us, it is forgiven.
        self._waited = max(0.0, self._waited - (begun - self._left_peer_at))
        self._at_peer_since = begun
        self.turn = turn
        self._is_in_grpc = in_grpc
        try:
            yield
        finally:
            self._left_peer_at = time.monotonic()
            self._at_peer_since = None
            self._is_in_grpc = False
            self._waited += self._left_peer_at - begun

    def took(self, size: int) -> None:
        """Note that a message of so many bytes came."""
        self.has_begun = True
        self.moved(size)

    def moved(self, size: int) -> None:
        """Note that the caller took or sent so many bytes."""
        self._waited = max(0.0, self._waited - size / _SLOWEST_BYTES)

    def seconds_at_peer(self) -> float:
        """How long the caller has kept us waiting, less what it moved meanwhile.

        Nobody gets far with a byte now and then: each is worth its own time only.
        """
        since = self._at_peer_since
        return self._waited + (0.0 if since is None else time.monotonic() - since)

    def break_off(self, why: CasError) -> None:
        """End the call; its work notices, and its caller hears why.

        A caller who is waited for within gRPC's library hears code and message without details:
        its thread can be woken by ending the call at once, and such an end carries no more.
        """
        self.broken_off = why
        self.cancellation.set()
        if self._is_in_grpc:
            _end_at_once(self._context, why)


def _end_at_once(context: grpc.ServicerContext, why: CasError) -> None:
    """Give a call its status past the messages that its caller has not taken yet.

    What gRPC declares, ``ServicerContext.cancel``, gives CANCELLED alone; what that calls takes a
    status as well.
    """
    code, message = bare_status(why)
    try:
        cast("Any", context)._rpc_event.call.cancel(code, message)  # noqa: SLF001 - see above
    except (AttributeError, TypeError):  # a release of grpcio that has it elsewhere
        context.cancel()


def _key(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata():
        if name == _CALL_KEY and isinstance(value, str):
            return value
    return ""
