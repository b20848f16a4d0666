"""Room kept back on the store's file system, so that removing works when there is no other left.

Removing needs room itself: containerd's database grows by the pages of the removal before it
shrinks.
"""

__all__ = ["RESERVE_BYTES", "keep_reserve", "reserve_given_up", "room_to_remove"]

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from cas.errors import CasError
from cas.fsops.trees import ensure_reserve, free_bytes, release_reserve
from cas.model.layout import Layout

_log = logging.getLogger(__name__)

RESERVE_BYTES = 16 * 1024 * 1024
_PLENTY = 4
"""The reserve is made only where that many times its size is free: it must not cause the lack."""


def keep_reserve(layout: Layout) -> bool:
    """Make the reserve if it is not there and there is room enough. Idempotent.

    Returns:
        Whether it is there now.

    Raises:
        StorageError: A system call failed.
    """
    if not layout.reserve.parent.is_dir():
        return False
    if not layout.reserve.exists() and free_bytes(layout.case) < _PLENTY * RESERVE_BYTES:
        return False
    return ensure_reserve(layout.reserve, RESERVE_BYTES)


@contextmanager
def reserve_given_up(layout: Layout, *, make: bool) -> Iterator[None]:
    """Free the reserve for the time of the context; afterwards it is there again.

    One that was there comes back as soon as it fits, so that the next full disk finds it.

    Args:
        layout: Of the store.
        make: Whether to make one that was not there, as :func:`keep_reserve` does.

    Raises:
        StorageError: It could not be given up.
    """
    released = release_reserve(layout.reserve) if layout.reserve.parent.is_dir() else 0
    _log.debug("reserve given up bytes=%d", released)
    try:
        yield
    finally:
        try:
            if released:
                ensure_reserve(layout.reserve, RESERVE_BYTES)
            elif make:
                keep_reserve(layout)
        except CasError as error:
            # What was to be removed is removed; the next prune makes the reserve again.
            _log.warning("reserve not restored error=%s", error)


@contextmanager
def room_to_remove(layout: Layout) -> Iterator[None]:
    """Free the reserve for the time of the context if there is hardly any room; for one removal.

    Raises:
        StorageError: It could not be given up.
    """
    if free_bytes(layout.case) >= RESERVE_BYTES:
        yield
        return
    with reserve_given_up(layout, make=False):
        yield
