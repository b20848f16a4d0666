"""What the service counts, in the terms of Prometheus.

A scrape is cheap and asks containerd nothing: what it tells of the store comes from directory
entries and from the file system, and the walk over the blobs is repeated once a minute at most.
"""

__all__ = ["Metrics", "StoreSize"]

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cas import __version__
from cas.errors import CasError
from cas.fsops.trees import free_bytes
from cas.model.layout import Layout
from cas.store.guard import VaultGuard
from cas.volumes.disk.scan import iter_disks
from cas.volumes.scan import iter_names

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From a look-up, which takes milliseconds, to the unpacking of a large image."""
_MEASURED_FOR_SECONDS = 60.0


class Metrics:
    """The counters of one service; safe to use from any thread."""

    def __init__(self) -> None:
        # A second sample for each that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls = self._counter("cas_rpc_calls", "Calls that have ended", "method", "code")
        self._seconds = Histogram(
            "cas_rpc_seconds",
            "Duration of calls",
            ["method"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._running = Gauge(
            "cas_rpc_running", "Calls that are under way", ["method"], registry=self.registry
        )
        self._ingested = self._counter("cas_ingested_bytes", "Bytes of new blobs, images included")
        self._restarts = self._counter("cas_containerd_restarts", "Ends of containerd by itself")
        self._recoveries = self._counter("cas_recoveries", "Recovery runs", "outcome")
        self._up = Gauge("cas_containerd_up", "Whether containerd answers", registry=self.registry)
        Gauge("cas_build", "Always 1", ["version"], registry=self.registry).labels(__version__).set(
            1
        )

    def call_began(self, method: str) -> None:
        """Count a call that begins."""
        self._running.labels(method).inc()

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call that began before.

        Args:
            method: As in ``/cas.v1.Blobs/Get``.
            code: Name of its gRPC status.
            seconds: Its duration.
        """
        self._running.labels(method).dec()
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def ingested(self, size: int) -> None:
        """Count the bytes of a new blob."""
        self._ingested.inc(size)

    def containerd_is_up(self, up: bool) -> None:  # noqa: FBT001 (the value itself)
        """Remember whether containerd answers."""
        self._up.set(up)

    def containerd_ended(self) -> None:
        """Count an end of containerd that nobody asked for."""
        self._restarts.inc()

    def recovered(self, outcome: str) -> None:
        """Count a run of recovery that ended as ``done`` or ``failed``."""
        self._recoveries.labels(outcome).inc()

    def watch(self, layout: Layout, guard: VaultGuard, blobs_directory: Path | None) -> None:
        """Tell at every scrape what the store holds; nothing of it while its vault is locked."""
        self.registry.register(_StoreCollector(layout, guard, blobs_directory))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


@dataclass(frozen=True, slots=True)
class StoreSize:
    """The files of the blobs directory: their number, and their bytes."""

    blobs: int
    size: int

    @classmethod
    def measure(cls, directory: Path) -> "StoreSize":
        """Walk over it; a directory that is not there yet is empty."""
        blobs = size = 0
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # it has just gone
                        size += entry.stat(follow_symlinks=False).st_size
                        blobs += 1
        except FileNotFoundError:
            return cls(0, 0)
        return cls(blobs, size)


class _StoreCollector(Collector):
    """Looks at the store when it is asked."""

    def __init__(self, layout: Layout, guard: VaultGuard, blobs_directory: Path | None) -> None:
        self._layout = layout
        self._vault = guard
        self._directory = blobs_directory
        self._guard = threading.Lock()
        self._measured: tuple[float, StoreSize] | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield what can be told now; what cannot be looked at is left out."""
        try:
            found = list(self._look())
            # Asked afterwards: a locked directory has no names in it, and that is no number.
            self._vault.check_open()
        except CasError:
            self._measured = None
            return
        yield from found

    def _look(self) -> Iterator[Metric]:
        volumes = chain(iter_names(self._layout), iter_disks(self._layout))
        yield GaugeMetricFamily("cas_volumes", "Volumes", sum(1 for _ in volumes))
        free = free_bytes(self._layout.case)
        yield GaugeMetricFamily("cas_free_bytes", "Free bytes of the store's file system", free)
        if self._directory is not None:
            size = self._store_size(self._directory)
            yield GaugeMetricFamily("cas_blobs", "Blobs, at most a minute ago", size.blobs)
            yield GaugeMetricFamily("cas_blob_bytes", "Their bytes", size.size)

    def _store_size(self, directory: Path) -> StoreSize:
        with self._guard:
            now = time.monotonic()
            if self._measured is None or now - self._measured[0] > _MEASURED_FOR_SECONDS:
                self._measured = (now, StoreSize.measure(directory))
            return self._measured[1]
