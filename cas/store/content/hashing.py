"""Hashes in a second thread what the first one writes.

hashlib and write(2) release the interpreter's lock, so that both run at once; hashing is the
slower of the two and sets the speed.
"""

__all__ = ["BackgroundHash", "digest_of", "holds"]

import hashlib
import threading
from collections.abc import Iterable
from queue import Full, Queue
from typing import TYPE_CHECKING, Self

from cas.errors import SourceNotFoundError
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES

if TYPE_CHECKING:
    from cas.store.content.sources import Source

_CHUNKS_IN_FLIGHT = 4
_PAUSE_SECONDS = 0.5


class BackgroundHash:
    """A running sha256; leaving its ``with`` block ends its thread.

    For one feeding thread. At most four chunks wait in memory.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._chunks: Queue[bytes | None] = Queue(_CHUNKS_IN_FLIGHT)
        self._thread = threading.Thread(target=self._run, name="cas-hash", daemon=True)
        self._thread.start()

    def update(self, data: bytes) -> None:
        """Hash ``data`` after everything before it; waits while the hash is behind."""
        self._chunks.put(data)

    def digest(self) -> Digest:
        """Wait for everything fed so far and give its digest; feeding may go on after it."""
        self._chunks.join()
        return Digest(self._hash.hexdigest())

    def restart(self) -> None:
        """Forget everything fed so far."""
        self._chunks.join()
        self._hash = hashlib.sha256()

    def close(self) -> None:
        """End the thread; what waits is hashed first, a few milliseconds. Idempotent."""
        while self._thread.is_alive():
            # A second Ctrl-C may end any wait in here; the thread is a daemon and holds nothing.
            try:
                self._chunks.put(None, timeout=_PAUSE_SECONDS)
            except Full:
                continue
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (data := self._chunks.get()) is not None:
            self._hash.update(data)
            self._chunks.task_done()
        self._chunks.task_done()


def digest_of(chunks: Iterable[bytes]) -> tuple[Digest, int]:
    """Hash chunks in this thread.

    Returns:
        Digest and number of bytes.
    """
    running = hashlib.sha256()
    size = 0
    for chunk in chunks:
        running.update(chunk)
        size += len(chunk)
    return Digest(running.hexdigest()), size


def holds(source: "Source", digest: Digest) -> bool:
    """Read a source and say whether it is there and has just these bytes."""
    try:
        with source.open() as reader:
            found, _ = digest_of(iter(lambda: reader.read(CHUNK_BYTES), b""))
    except SourceNotFoundError:
        return False
    return found == digest
