"""Watches over a layer while containerd unpacks it, and stops what must not go on.

containerd bounds nothing: a few kilobytes of gzip may unpack until the disk is full. An instance
is called a few times per second while Apply runs; whatever it raises cancels the call.
"""

__all__ = ["LayerWatch"]

from collections.abc import Callable
from pathlib import Path

from cas.errors import LimitExceededError, NoSpaceError
from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.limits import Limits

_LONGEST_PAUSE = 32


class LayerWatch:
    """Callback for one Apply.

    Args:
        layer: The compressed layer.
        limits: How far it may expand and how much room must stay free.
        unpacked_bytes: Asks containerd how much the snapshot takes by now; it walks the tree, so
            it is asked at growing intervals.
        room: A directory on the file system that fills up, None when it cannot be reached.
        keep_alive: Renews the lease.
        cancel: Tells that the caller gave up.
    """

    def __init__(
        self,
        layer: Descriptor,
        limits: Limits,
        *,
        unpacked_bytes: Callable[[], int],
        room: Path | None,
        keep_alive: Callable[[], None],
        cancel: Cancellation | None,
    ) -> None:
        self._layer = layer
        self._limits = limits
        self._unpacked_bytes = unpacked_bytes
        self._room = room
        self._keep_alive = keep_alive
        self._cancel = cancel
        self._calls = 0
        self._pause = 2
        self._next_usage = 2

    @property
    def largest(self) -> int:
        """Bytes that the layer may unpack to."""
        limits = self._limits
        return max(limits.layer_expansion_floor_bytes, limits.layer_expansion * self._layer.size)

    def __call__(self) -> None:
        """Look once.

        Raises:
            InterruptedOperationError: The caller gave up.
            LeaseNotFoundError: The lease is gone.
            LimitExceededError: The layer unpacks to more than :attr:`largest`.
            NoSpaceError: Less room than ``min_free_bytes`` is left.
        """
        self._calls += 1
        if self._cancel is not None:
            self._cancel.check()
        self._keep_alive()
        self._check_room()
        if self._calls >= self._next_usage:
            self.check_size(self._unpacked_bytes())
            self._next_usage = self._calls + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def check_size(self, size: int) -> None:
        """Compare unpacked bytes with the limit.

        Raises:
            LimitExceededError: ``size`` is above :attr:`largest`.
        """
        if size > self.largest:
            raise LimitExceededError(
                f"layer {self._layer.digest} of {self._layer.size} bytes unpacks to more than "
                f"{self.largest} bytes (reached {size}); raise the limit layer_expansion if the "
                "image is to be trusted",
                digest=self._layer.digest,
                expected=self.largest,
                actual=size,
            )

    def _check_room(self) -> None:
        if self._room is None:
            return
        free = free_bytes(self._room)
        wanted = self._limits.min_free_bytes
        if free < wanted:
            raise NoSpaceError(
                f"unpacking layer {self._layer.digest} left {free} bytes free where {wanted} must "
                f"stay; free at least {wanted - free} bytes more and try again",
                digest=self._layer.digest,
                missing=wanted - free,
            )
