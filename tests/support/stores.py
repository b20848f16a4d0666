"""Builders and assertions for tests of the store's use cases on a real containerd."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cas.containerd.client import Containerd
from cas.errors import BlobNotFoundError
from cas.fsops import processes
from cas.model.digest import Digest
from cas.model.labels import STORE_ID
from cas.model.records import LeaseID
from cas.model.settings import Settings
from cas.store.backing import Backing, Clock
from cas.store.content.sources import Reader
from tests.support.daemon import WAIT_SECONDS

FIRST_DAEMON_THAT_SYNCS = (1, 7, 14)


def utc_now() -> datetime:
    return datetime.now(UTC)


class ShiftedClock:
    """The real time plus a shift that a test sets."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.shift


def backing_for(
    containerd: Containerd, settings: Settings, *, clock: Clock = utc_now, **changes: object
) -> Backing:
    """Wire a store on a connection; ``changes`` replace parts of it."""
    parts: dict[str, object] = {
        "content": containerd.content,
        "images": containerd.images,
        "leases": containerd.leases,
        "snapshots": containerd.snapshots,
        "diff": containerd.diff,
        "namespaces": containerd.namespaces,
        "events": containerd.events,
        "blobs_directory": containerd.blobs_directory,
        "snapshotter": settings.snapshotter,
        "layout": settings.layout,
        "limits": settings.limits,
        "clock": clock,
        "identity": processes.current(),
        "volumes": lambda: iter(()),
        "daemon_syncs_layers": containerd.facts.version >= FIRST_DAEMON_THAT_SYNCS,
        "namespace": settings.namespace,
    }
    return Backing(**{**parts, **changes})  # type: ignore[arg-type]


def blobs_directory(backing: Backing) -> Path:
    assert backing.blobs_directory is not None, "the tests' containerd must be within reach"
    return backing.blobs_directory


def blob_file(backing: Backing, digest: Digest) -> Path:
    return blobs_directory(backing) / digest.hex


def own_blobs(backing: Backing) -> set[Digest]:
    """Digests of the namespace, its sentinel left out."""
    return {blob.digest for blob in backing.content.iter_blobs() if STORE_ID not in blob.labels}


def is_stored(backing: Backing, digest: Digest) -> bool:
    try:
        backing.content.info(digest)
    except BlobNotFoundError:
        return False
    return True


def assert_nothing_left(backing: Backing) -> None:
    """No ingest, lease, staged file, reservation or foreign name among the blobs is there."""
    assert list(backing.content.iter_ingests()) == []
    assert list(backing.leases.iter_leases()) == []
    assert names(backing.layout.stage) == []
    assert names(backing.layout.reservations) == []
    for name in names(blobs_directory(backing)):
        assert re.fullmatch("[0-9a-f]{64}", name), name


def assert_never_stored(backing: Backing, *digests: Digest) -> None:
    """Neither record nor file of the blobs is there, and nothing else is left."""
    for digest in digests:
        assert not is_stored(backing, digest)
        assert not blob_file(backing, digest).exists()
    assert_nothing_left(backing)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def random_bytes(size: int) -> bytes:
    return os.urandom(size)


class WatchedSource:
    """Bytes whose reading a test watches: ``at`` is called before each chunk with its number."""

    path = None

    def __init__(
        self,
        data: bytes,
        at: Callable[[int], object] = lambda _number: None,
        *,
        repeatable: bool = True,
        hinted: bool = True,
    ) -> None:
        self._data = data
        self._at = at
        self.repeatable = repeatable
        self.size_hint: int | None = len(data) if hinted else None
        self.name = "watched"
        self.offsets: list[int] = []
        self.bytes_read = 0

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:
        self.offsets.append(offset)
        yield _WatchedReader(self, memoryview(self._data)[offset:])

    def _read(self, number: int, chunk: memoryview) -> bytes:
        self._at(number)
        self.bytes_read += len(chunk)
        return bytes(chunk)


class _WatchedReader:
    def __init__(self, source: WatchedSource, rest: memoryview) -> None:
        self._source = source
        self._rest = rest
        self._number = 0

    def read(self, size: int) -> bytes:
        chunk, self._rest = self._rest[:size], self._rest[size:]
        self._number += 1
        return self._source._read(self._number - 1, chunk)


class Collections:
    """Collections that sweep the blobs directory, forced one after the other in a thread."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._stop = threading.Event()
        self._round = threading.Condition()
        self._rounds = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def wait(self, rounds: int = 2) -> None:
        """Wait for so many more; after two, one has begun and ended meanwhile."""
        with self._round:
            goal = self._rounds + rounds
            done = self._round.wait_for(
                lambda: self._rounds >= goal or self._failure is not None, WAIT_SECONDS
            )
        assert done, "containerd did not collect"

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._collect()
                with self._round:
                    self._rounds += 1
                    self._round.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            self._failure = error

    def _collect(self) -> None:
        # Only a deletion makes the next collection look at files.
        data = os.urandom(16)
        digest = Digest.of(data)
        lease = LeaseID(f"test-{digest.hex[:12]}")
        self._backing.leases.create(lease, {})
        self._backing.content.put(f"dirty-{digest.hex}", lease, data, digest, {})
        self._backing.content.delete(digest)
        self._backing.leases.delete(lease, sync=True)


def labels_of(backing: Backing, digest: Digest) -> Mapping[str, str]:
    return backing.content.info(digest).labels
