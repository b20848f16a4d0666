"""One running call, as servicer, dispatcher and registry see it."""

__all__ = ["Call"]

import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from cas.model.cancellation import Cancellation
from cas.rpc.server.gate import Gate

_CALL_KEY = "cas-call"
"""Metadata by which a caller names its call; see ``Store.Wait`` in store.proto."""
_SLOWEST_BYTES = 8 * 1024
"""Per second: less than the slowest link of a device. A caller who sends this much keeps nobody
waiting."""


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
    """

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self.method = method
        self.cancellation = Cancellation()
        self.key = _key(context)
        self.guarded = False
        self.has_begun = False
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

    @property
    def is_at_peer(self) -> bool:
        """Whether it is the caller's turn."""
        return self._at_peer_since is not None

    @contextmanager
    def at_peer(self) -> Iterator[None]:
        """Note, as long as the context lasts, that it is the caller's turn: to read or to send."""
        begun = time.monotonic()
        # As long as the caller waits for us, it is forgiven.
        self._waited = max(0.0, self._waited - (begun - self._left_peer_at))
        self._at_peer_since = begun
        try:
            yield
        finally:
            self._left_peer_at = time.monotonic()
            self._at_peer_since = None
            self._waited += self._left_peer_at - begun

    def moved(self, size: int) -> None:
        """Note that the caller took or sent so many bytes."""
        self._waited = max(0.0, self._waited - size / _SLOWEST_BYTES)

    def seconds_at_peer(self) -> float:
        """How long the caller has kept us waiting, less what it moved meanwhile.

        Nobody gets far with a byte now and then: each is worth its own time only.
        """
        since = self._at_peer_since
        return self._waited + (0.0 if since is None else time.monotonic() - since)

    def break_off(self) -> None:
        """End the call for its caller; its work notices."""
        self._context.cancel()


def _key(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata():
        if name == _CALL_KEY and isinstance(value, str):
            return value
    return ""
