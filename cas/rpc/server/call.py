"""One running call, as servicer, dispatcher and registry see it."""

__all__ = ["Call"]

import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from cas.model.cancellation import Cancellation

_CALL_KEY = "cas-call"
"""Metadata by which a caller names its call; see ``Store.Wait`` in store.proto."""


class Call:
    """A call that somebody made.

    Args:
        method: As in ``/cas.v1.Blobs/Get``.
        context: gRPC's side of it.

    Attributes:
        cancellation: Set when the caller goes away, gives up, or its deadline is over.
        key: How the caller named it; empty if not.
        guarded: Whether it works on what is in the vault.
    """

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self.method = method
        self.cancellation = Cancellation()
        self.key = _key(context)
        self.guarded = False
        self._context = context
        self._at_peer_since: float | None = None
        if not context.add_callback(self.cancellation.set):
            self.cancellation.set()  # it has ended already

    @contextmanager
    def at_peer(self) -> Iterator[None]:
        """Note, as long as the context lasts, that it is the caller's turn: to read or to send."""
        self._at_peer_since = time.monotonic()
        try:
            yield
        finally:
            self._at_peer_since = None

    def seconds_at_peer(self) -> float:
        """How long the caller has not moved although it was its turn."""
        since = self._at_peer_since
        return 0.0 if since is None else time.monotonic() - since

    def break_off(self) -> None:
        """End the call for its caller; its work notices."""
        self._context.cancel()


def _key(context: grpc.ServicerContext) -> str:
    for name, value in context.invocation_metadata():
        if name == _CALL_KEY and isinstance(value, str):
            return value
    return ""
