"""Do the blobs have their bytes? Reads everything, within a time, and goes on where it stopped.

The cursor is the last digest that was read; blobs are read in the order of their digests, so that
what comes and goes in between neither stops a round nor is read twice in it. Looks only, but for
the cursor.
"""

__all__ = ["DataCheck", "ScrubState", "hash_blob"]

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cas.errors import BlobNotFoundError, CorruptBlobError, InvalidNameError, StorageError
from cas.fsops.durable import make_directory, remove_file, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.model.progress import Progress
from cas.store.account.files import blob_path
from cas.store.account.graph import Graph, Kind
from cas.store.backing import Backing
from cas.store.check.blobs import blob_finding, current_blob
from cas.store.check.findings import Finding, Hits, Problem
from cas.store.content.hashing import digest_of

_ACTION = "read"
_CURSOR_BYTES = 64 * 1024
_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class ScrubState:
    """How far reading came.

    Args:
        complete: The round ended; the next run begins anew.
        blobs: Read by this run.
        size: Bytes read by this run.
        remaining: Blobs of this round that are still to be read.
    """

    complete: bool
    blobs: int
    size: int
    remaining: int


class DataCheck:
    """One run of reading all blobs.

    Args:
        backing: The store.
        graph: Its blobs.
        hits: For the findings.
        max_duration: No further blob is begun after that long; None for no limit. The blob in hand
            is read to its end, so that every run gets on.
    """

    def __init__(
        self, backing: Backing, graph: Graph, hits: Hits, *, max_duration: timedelta | None
    ) -> None:
        self._backing = backing
        self._hits = hits
        self._max_duration = max_duration
        self._digests = sorted(graph.name(node) for node in graph.nodes(Kind.BLOB))
        self.state = ScrubState(complete=False, blobs=0, size=0, remaining=len(self._digests))

    def run(self, cancel: Cancellation, progress: Progress) -> Iterator[Finding]:
        """Read on from the cursor and yield what is wrong; :attr:`state` tells how far it came.

        The cursor is durable after each finding and at the end, however it ends.

        Raises:
            InterruptedOperationError: ``cancel`` was set; the next run goes on from here.
            UnavailableError: containerd does not answer.
        """
        begun = time.monotonic()
        last = self._load()
        todo = [digest for digest in self._digests if digest > last]
        position, size = 0, 0
        progress.start(_ACTION, "blobs", None)
        try:
            for text in todo:
                cancel.check()
                if position and self._is_over(begun):
                    break
                digest = Digest.parse(text)
                found, amount = self._read(digest, cancel, progress)
                position, size, last = position + 1, size + amount, text
                if found is not None:
                    self._save(last)
                    yield found
        finally:
            progress.finish(_ACTION, "blobs")
            remaining = len(todo) - position
            self.state = ScrubState(remaining == 0, position, size, remaining)
            self._save("" if remaining == 0 else last)

    def _is_over(self, begun: float) -> bool:
        limit = self._max_duration
        return limit is not None and time.monotonic() - begun >= limit.total_seconds()

    def _read(
        self, digest: Digest, cancel: Cancellation, progress: Progress
    ) -> tuple[Finding | None, int]:
        blob = current_blob(self._backing, digest)
        if blob is None:
            return None, 0
        try:
            actual, size = hash_blob(self._backing, digest, cancel, progress)
        except (CorruptBlobError, StorageError) as error:
            problem, message, size = Problem.BLOB_UNREADABLE, error.message, 0
        except BlobNotFoundError:
            return None, 0
        else:
            if actual == digest and size == blob.size:
                return None, size
            problem = Problem.BLOB_CONTENT
            message = f"its {size} bytes hash to {actual}, expected {blob.size} bytes"
        # Removed while it was read, its file may have vanished first.
        if current_blob(self._backing, digest) is None:
            return None, size
        return blob_finding(digest, problem, message, self._hits), size

    def _load(self) -> str:
        """Give the last digest read; empty at the beginning of a round."""
        path = self._backing.layout.scrub_cursor
        with translated("read", path):
            try:
                with regular_file(path) as file:
                    document = json.loads(file.read(_CURSOR_BYTES))
            except FileNotFoundError:
                return ""
            except ValueError:
                # Only a cursor: a damaged one costs a round from the beginning.
                return ""
        last = document.get("last") if isinstance(document, dict) else None
        try:
            return str(Digest.parse(last)) if isinstance(last, str) else ""
        except InvalidNameError:
            return ""

    def _save(self, last: str) -> None:
        path = self._backing.layout.scrub_cursor
        if not last:
            if path.parent.is_dir():
                remove_file(path)
            return
        now: datetime = self._backing.clock()
        document = {"last": last, "updated": now.isoformat(timespec="seconds")}
        make_directory(path.parent, mode=_DIRECTORY_MODE, parents=True)
        write_file(path, json.dumps(document, indent=2).encode() + b"\n")


def hash_blob(
    backing: Backing, digest: Digest, cancel: Cancellation, progress: Progress
) -> tuple[Digest, int]:
    """Hash a blob's stored bytes, from the device rather than from memory where files are in reach.

    Raises:
        BlobNotFoundError: It has neither record nor file.
        CorruptBlobError: It has a record but no regular file.
        StorageError: The device cannot read it.
        InterruptedOperationError: ``cancel`` was set.
    """
    directory = backing.blobs_directory
    chunks = (
        backing.content.read(digest)
        if directory is None
        else _read_file(blob_path(directory, digest), digest)
    )

    def watched() -> Iterator[bytes]:
        with closing(chunks):  # type: ignore[type-var]  # both are generators
            for chunk in chunks:
                cancel.check()
                progress.advance(_ACTION, "blobs", len(chunk))
                yield chunk

    return digest_of(watched())


def _read_file(path: Path, digest: Digest) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise CorruptBlobError(
            f"blob {digest} cannot be opened: {error.strerror}", digest=digest, path=path
        ) from error
    try:
        with translated("read", path):
            # What is only in memory would hide what the device lost; and a scrub of everything
            # must not push everybody else's pages out.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
