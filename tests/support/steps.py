"""Steps of this process: each change of a file system and each call that changes containerd.

A crash between two steps is all that a crash can be for what this process does, so a test that
acts on the k-th step, for every or some random k, meets every state that a crash can leave.
"""

__all__ = [
    "Announce",
    "AtStep",
    "WatchedCancellation",
    "announcing",
    "calls_announced",
    "open_case",
]

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from cas.app import Case, utc_now
from cas.containerd.client import Containerd
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from cas.model.settings import Settings
from tests.support.daemon import connect

Announce = Callable[[str], object]
"""Told of each step right before it happens; what it raises comes out of the step."""

_SERVICES = ("content", "images", "leases", "snapshots", "diff", "namespaces")
_LOOKS = ("info", "stat", "get", "read", "iter_", "usage", "mounts", "labels", "exists")


class _Announcing:
    """Passes every call on to a service and announces those that change something."""

    def __init__(self, service: object, name: str, announce: Announce) -> None:
        self._service, self._name, self._announce = service, name, announce

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._service, method)
        if method.startswith(_LOOKS) or not callable(found):
            return found

        def call(*arguments: object, **options: object) -> object:
            self._announce(f"{self._name}.{method}")
            return found(*arguments, **options)

        return call


def announcing(containerd: Containerd, announce: Announce) -> Containerd:
    """Let ``announce`` see every call on the connection that changes something."""
    for name in _SERVICES:
        service = _Announcing(getattr(containerd, name), name, announce)
        setattr(containerd, name, cast("Any", service))
    return containerd


@contextmanager
def open_case(settings: Settings, announce: Announce = lambda step: None) -> Iterator[Case]:
    """Open the store with every step announced."""

    def tell(kind: Effect, path: str) -> None:
        announce(f"{kind} {path}")

    Case.open(settings).close()
    with connect(settings) as connection:
        case = Case(settings, announcing(connection, announce), utc_now)
        with observed(tell):
            yield case


class _CallHandler(logging.Handler):
    def __init__(self, announce: Announce) -> None:
        super().__init__(logging.DEBUG)
        self._announce = announce

    def emit(self, record: logging.LogRecord) -> None:
        self._announce(record.getMessage())


@contextmanager
def calls_announced(announce: Announce) -> Iterator[None]:
    """Let ``announce`` see every call to containerd of this process, right after its answer."""
    logger = logging.getLogger("cas.containerd.translation")
    handler, before = _CallHandler(announce), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


class AtStep:
    """Does something at the k-th step from now; may be told of steps by several threads."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.steps = 0
        self._last: int | None = None
        self._guard = threading.Lock()

    def set(self, last: int | None) -> None:
        """Begin to count; None only counts."""
        self.steps, self._last = 0, last

    def __call__(self, step: str) -> None:
        with self._guard:
            if self.steps == self._last:
                self._act()
            self.steps += 1


class WatchedCancellation(Cancellation):
    """A flag that tells when it is looked at: between chunks, and while a layer is unpacked."""

    __slots__ = ("_looked",)

    def __init__(self, looked: Announce) -> None:
        super().__init__()
        self._looked = looked

    def check(self) -> None:
        """Look."""
        self._looked("look")
        super().check()
