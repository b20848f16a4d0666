"""A mixed load on a service: many callers, each with its own objects and every kind of call."""

__all__ = ["Caller", "Gauge"]

import io
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cas.errors import BlobNotFoundError, DigestMismatchError, InterruptedOperationError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from tests.support.volumemgr import volume_name

_SAMPLE_SECONDS = 0.1


class Caller:
    """One caller on a connection of its own, which it makes anew now and then.

    Args:
        socket: Where the service listens.
        image: A name of an image in the store.
        archive: A small image that it brings in under names of its own.
        source: Of all that is random.
    """

    def __init__(self, socket: Path, image: str, archive: bytes, source: random.Random) -> None:
        self._socket = socket
        self._image = image
        self._archive = archive
        self._random = source
        self.done: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Make calls until the time is over, or one fails that should not."""
        work: list[Callable[[Client], None]] = [
            self._look,
            self._look,
            self._small_blob,
            self._large_blob,
            self._wrong_blob,
            self._broken_off,
            self._own_image,
            self._own_volume,
            self._whole_store,
        ]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with Client.connect(self._socket) as client:
                for step in self._random.sample(work, k=3):
                    step(client)
                    self.done[step.__name__] += 1

    def _look(self, client: Client) -> None:
        assert client.images.get(self._image).name == self._image
        for _ in range(5):
            target = client.images.get(self._image).target.digest
            assert client.blobs.get(target).digest == target

    def _small_blob(self, client: Client) -> None:
        self._blob(client, 4096)

    def _large_blob(self, client: Client) -> None:
        self._blob(client, 3_000_000)

    def _blob(self, client: Client, size: int) -> None:
        data = self._random.randbytes(size)
        digest = client.blobs.ingest_stream(io.BytesIO(data)).digest
        assert b"".join(client.blobs.read(digest)) == data
        assert client.blobs.remove(digest)

    def _wrong_blob(self, client: Client) -> None:
        data = self._random.randbytes(100_000)
        with suppress(DigestMismatchError):
            client.blobs.ingest_stream(io.BytesIO(data), digest=Digest.of(b"other"))
        try:
            client.blobs.get(Digest.of(data))
        except BlobNotFoundError:
            return
        raise AssertionError("what was refused is in the store")

    def _broken_off(self, client: Client) -> None:
        cancel = Cancellation()
        data = io.BytesIO(self._random.randbytes(2_000_000))
        try:
            client.blobs.ingest_stream(_Cancelling(data, cancel), cancel=cancel)
        except InterruptedOperationError:
            return
        raise AssertionError("a cancelled call went on")

    def _own_image(self, client: Client) -> None:
        name = f"example.com/own/{self._random.randbytes(8).hex()}:1"
        client.images.import_archive(io.BytesIO(self._archive), name=name)
        out = io.BytesIO()
        client.images.export(name, out)
        assert len(out.getvalue()) > 0
        assert client.images.remove(name)

    def _own_volume(self, client: Client) -> None:
        name = VolumeName.parse(volume_name())
        rootfs = client.volumes.prepare(name, self._image, activate=True).rootfs
        (rootfs / "mine").write_bytes(b"x" * 10_000)
        assert client.volumes.usage(name).own_bytes > 0
        assert client.volumes.remove(name)

    def _whole_store(self, client: Client) -> None:
        assert any(True for _ in client.blobs.iter_blobs())
        assert self._image in {record.name for record in client.images.iter_images()}
        list(client.volumes.iter_volumes())
        client.usage.measure()
        client.why.explain(self._image)


class _Cancelling:
    """Bytes whose reader is cancelled when half of them are read."""

    def __init__(self, data: io.BytesIO, cancel: Cancellation) -> None:
        self._data = data
        self._cancel = cancel

    def read(self, size: int = -1) -> bytes:
        if self._data.tell() >= len(self._data.getbuffer()) // 2:
            self._cancel.set()
        return self._data.read(min(size, 100_000))


@dataclass
class Gauge:
    """What a process uses.

    Args:
        pid: Of the process.

    Attributes:
        peak_bytes: The most resident memory that was seen while :meth:`watching`.
    """

    pid: int
    peak_bytes: int = 0

    @property
    def resident_bytes(self) -> int:
        """Resident memory."""
        return self._status("VmRSS") * 1024

    @property
    def threads(self) -> int:
        """Threads."""
        return self._status("Threads")

    @property
    def descriptors(self) -> int:
        """Open descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the peak as long as the context lasts."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SAMPLE_SECONDS):
                self.peak_bytes = max(self.peak_bytes, self.resident_bytes)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{key}:\s*(\d+)", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1])
