"""Rows about small calls: through the service, through the library, and by ctr."""

__all__ = ["latency", "rate"]

import io
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from cas.app import Case
from cas.errors import ServiceUnavailableError
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from hack.bench_setting import (
    IMAGE,
    MIB,
    Bench,
    Row,
    forget_image,
    image_archive,
    new_name,
)

_CALLERS = 16
_LOADERS = 4
_WAIT_SECONDS = 30.0
_VOLUME = (
    "ctr makes a snapshot and nothing else; a volume is a snapshot, a directory and a record, all "
    "of them synced before the answer"
)

_Store = Client | Case
_Ways = dict[str, Callable[[], object]]


@contextmanager
def _service(bench: Bench, namespace: str) -> Iterator[Callable[[], Client]]:
    """Run ``cas serve`` on the bench's containerd; gives what connects to it."""
    environment = {**bench.environment, "CAS_NAMESPACE": namespace}
    command = ["cas", "--address", str(bench.settings.socket), "serve"]
    with (bench.root / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
        try:
            with _connected(bench):
                pass
            yield partial(_connected, bench)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _connected(bench: Bench) -> Client:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return Client.connect(bench.settings.service_socket)
        except ServiceUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _look(store: _Store) -> None:
    store.images.get(IMAGE)


def _prepare(store: _Store) -> None:
    store.volumes.prepare(VolumeName.parse(new_name()), IMAGE)


@contextmanager
def _load(connect: Callable[[], Client]) -> Iterator[None]:
    """Callers that store, read and remove blobs of 1 MiB, as long as the context lasts."""
    ended = threading.Event()

    def work() -> None:
        with connect() as client:
            while not ended.is_set():
                digest = client.blobs.ingest_stream(io.BytesIO(os.urandom(MIB))).digest
                for _ in client.blobs.read(digest):
                    pass
                client.blobs.remove(digest)

    with ThreadPoolExecutor(_LOADERS) as threads:
        running = [threads.submit(work) for _ in range(_LOADERS)]
        try:
            yield
        finally:
            ended.set()
    for future in running:
        future.result()


def _times(count: int, call: Callable[[], object]) -> list[float]:
    call()
    taken = []
    for _ in range(count):
        start = time.monotonic()
        call()
        taken.append(time.monotonic() - start)
    return taken


def _rows(title: str, ways: _Ways, count: int, note: str = "") -> Iterator[Row]:
    """Rows of the median and of the 99th percentile, for each way but ctr's."""
    taken = {way: _times(count if way != "ctr" else count // 5, ways[way]) for way in ways}
    for name, percentile in (("p50", 50), ("p99", 99)):
        values = {
            way: 1000 * statistics.quantiles(times, n=100, method="inclusive")[percentile - 1]
            for way, times in taken.items()
        }
        for way in ("service", "library"):
            yield Row(f"{title}, {name}, {way}", "ms", [values[way]], [values["ctr"]], note=note)


def latency(bench: Bench) -> Iterator[Row]:
    """How long a look at an image, and a volume of it, take: idle and under load."""
    namespace, count = bench.namespace(), 500 // bench.scale
    with _service(bench, namespace) as connect, connect() as client, bench.open(namespace) as case:
        case.images.import_archive(image_archive(bench))
        _prepare(case)
        top = str(case.images.resolve(IMAGE).layers[-1].chain_id)

        def rows(state: str) -> Iterator[Row]:
            looks: _Ways = {
                "service": partial(_look, client),
                "library": partial(_look, case),
                "ctr": partial(bench.ctr, "images", "ls", f"name=={IMAGE}", namespace=namespace),
            }
            yield from _rows(f"image info, {state}", looks, count)
            volumes: _Ways = {
                "service": partial(_prepare, client),
                "library": partial(_prepare, case),
                "ctr": lambda: bench.ctr(
                    "snapshots", "prepare", new_name(), top, namespace=namespace
                ),
            }
            yield from _rows(f"volume of an image, {state}", volumes, count // 5, _VOLUME)

        yield from rows("idle")
        with _load(connect):
            loaded = list(rows("loaded"))
        yield from loaded
    forget_image(bench, namespace)


def rate(bench: Bench) -> Iterator[Row]:
    """Small calls per second from many callers at once."""
    namespace, count = bench.namespace(), 2000 // bench.scale
    with _service(bench, namespace) as connect, bench.open(namespace) as case:
        case.images.import_archive(image_archive(bench))
        by_ctr = _per_second(
            count // 10,
            lambda: bench.ctr("images", "ls", f"name=={IMAGE}", namespace=namespace),
        )
        with connect() as client:
            ways: dict[str, _Store] = {"service": client, "library": case}
            for way, store in ways.items():
                ours = _per_second(count, partial(_look, store))
                yield Row(
                    f"image info, {_CALLERS} callers, {way}", "calls/s", [ours], [by_ctr],
                    more_is_better=True,
                )  # fmt: skip
    forget_image(bench, namespace)


def _per_second(count: int, call: Callable[[], object]) -> float:
    start = time.monotonic()
    with ThreadPoolExecutor(_CALLERS) as threads:
        for future in [threads.submit(call) for _ in range(count)]:
            future.result()
    return count / (time.monotonic() - start)
