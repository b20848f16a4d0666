"""One blob from a datastore through both agents to where it is wanted.

Invariants: one transfer per digest at a time, whoever asks, and later ones find its result; what an
interrupted transfer left is gone on with at the step that it had reached; bytes that are not what
they claim are removed and fetched again, a bounded number of times; a verified file that is refused
for good does not stay.
"""

__all__ = ["Agents", "RemoteBlob", "Transfer", "Watch", "told"]

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from cas.datastores.fetch import held_bytes
from cas.downloader.downloader import Downloader
from cas.errors import CasError, DigestMismatchError, SizeMismatchError
from cas.fsops.durable import remove_file
from cas.fsops.reading import open_regular
from cas.fsops.trees import allocated_bytes
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.transfer_name import TransferName
from cas.pull.remains import drop_remains, is_final, places
from cas.store.locking import Locks
from cas.verifier.verifier import Verifier

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Agents:
    """Both agents, running."""

    downloader: Downloader
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """A blob as a datastore has it.

    Args:
        digest: That it claims to have.
        size: Bytes that it must have; None if nobody knows.
        path: As the datastore names it; of a registry, the repository.
        document: It is a manifest or index of a registry.
    """

    digest: Digest
    size: int | None
    path: str
    document: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """What looks after a transfer while its bytes come.

    Args:
        progress: Told of each step.
        arrived: Told of bytes that are on the disk by now and were not before.
        keep_alive: Called now and then; must not raise.
    """

    progress: Progress = NO_PROGRESS
    arrived: Callable[[int], None] = field(default=lambda _: None)
    keep_alive: Callable[[], None] = field(default=lambda: None)


class Transfer:
    """Transfers from one datastore for one image or file; may be used by several threads.

    Args:
        agents: Running, the downloader for that datastore.
        layout: Where files are on their way.
        image: UUID in their names.
        attempts: Downloads of a blob that is not what it claims, the first one included.
        watch: Looks after it.
    """

    def __init__(
        self, agents: Agents, layout: Layout, image: UUID, *, attempts: int, watch: Watch
    ) -> None:
        self._agents = agents
        self._layout = layout
        self._locks = Locks(layout)
        self._image = image
        self._attempts = attempts
        self._watch = watch

    def run(
        self,
        blob: RemoteBlob,
        *,
        present: Callable[[], _Result | None],
        take: Callable[[Path], _Result],
        cancel: Cancellation,
    ) -> _Result:
        """Bring a blob to where it is wanted, unless it is there.

        Args:
            blob: What is fetched.
            present: Gives the result if the blob is there already; asked before anything else, and
                again when a transfer of the same digest has ended.
            take: Takes the verified file in; removes its name when that is done.
            cancel: Ends the transfer; what came is kept.

        Raises:
            DigestMismatchError: The datastore gave other bytes, as often as allowed.
            SizeMismatchError: It gave another number of them, as often as allowed.
            CasError: Of the datastore, of an agent, or of ``take``.
        """
        found = present()
        if found is not None and not any(map(os.path.lexists, self._places(blob))):
            return found
        with self._locks.transfer(blob.digest, cancel=cancel):
            found = present()
            if found is None:
                return self._persist(blob, take, cancel)
            # Of a run that was killed when the blob had just been taken in.
            drop_remains(self._layout, TransferName(self._image, blob.digest))
            return found

    def _places(self, blob: RemoteBlob) -> tuple[Path, Path, Path]:
        return places(self._layout, TransferName(self._image, blob.digest))

    def room_needed(self, blob: RemoteBlob) -> int:
        """Tell how many bytes a transfer will still allocate; 0 where the size is unknown."""
        if blob.size is None:
            return 0
        *handed_over, download = self._places(blob)
        held = held_bytes(download)
        held += sum(allocated_bytes(path) for path in handed_over if os.path.lexists(path))
        return max(0, blob.size - held)

    def read(self, blob: RemoteBlob, *, cancel: Cancellation) -> bytes:
        """Give a small blob's verified bytes, which are kept nowhere; raises as :meth:`run`."""
        return self.run(blob, present=lambda: None, take=_read, cancel=cancel)

    def _persist(
        self, blob: RemoteBlob, take: Callable[[Path], _Result], cancel: Cancellation
    ) -> _Result:
        attempt = 1
        while True:
            try:
                return self._attempt(blob, take, cancel)
            except (DigestMismatchError, SizeMismatchError) as error:
                if attempt >= self._attempts:
                    message = (
                        f"{error.message}; it came {attempt} times: check the digest and size that "
                        "were given, or get it from a source you trust"
                    )
                    raise type(error)(message, **error.details) from error
                _log.warning("download discarded attempt=%d reason=%s", attempt, error)
                attempt += 1

    def _attempt(
        self, blob: RemoteBlob, take: Callable[[Path], _Result], cancel: Cancellation
    ) -> _Result:
        verified = self._layout.verified / blob.digest.hex
        if not self._is_left_whole(blob, cancel):
            self._obtain(blob, cancel)
        try:
            return take(verified)
        except CasError as error:
            if is_final(error):  # damaged since it was verified, or not wanted
                remove_file(verified)
            raise

    def _is_left_whole(self, blob: RemoteBlob, cancel: Cancellation) -> bool:
        """Whether an earlier run left the blob behind the downloader, proven anew."""
        *handed_over, _ = self._places(blob)
        if not any(map(os.path.lexists, handed_over)):
            return False
        name = TransferName(self._image, blob.digest)
        with told(Watch(self._watch.progress), "verify", blob) as tell:
            return self._agents.verifier.verify_leftover(
                name, blob.size, cancel=cancel, progress=tell
            )

    def _obtain(self, blob: RemoteBlob, cancel: Cancellation) -> None:
        name = TransferName(self._image, blob.digest)
        held = held_bytes(self._layout.download(name))
        with told(self._watch, "download", blob, held) as tell:
            self._agents.downloader.fetch(
                name,
                blob.path,
                blob.size,
                document=blob.document,
                cancel=cancel,
                progress=tell,
            )
        with told(Watch(self._watch.progress), "verify", blob) as tell:
            self._agents.verifier.verify(name, blob.size, cancel=cancel, progress=tell)


@contextmanager
def told(
    watch: Watch, action: str, blob: RemoteBlob, held: int = 0
) -> Iterator[Callable[[int, int | None], None]]:
    """Show a step of a transfer; gives what turns an agent's "bytes so far" into progress.

    Args:
        watch: Told of it.
        action: The step.
        blob: What it is done to.
        held: Bytes that were on the disk before.
    """
    item, before, most = str(blob.digest), 0, held

    def tell(done: int, _total: int | None) -> None:
        nonlocal before, most
        # An object that changed at its source begins anew; what comes again is told again.
        watch.progress.advance(action, item, max(0, done - before))
        watch.arrived(max(0, done - most))
        before, most = done, max(most, done)
        watch.keep_alive()

    watch.progress.start(action, item, blob.size)
    try:
        yield tell
    finally:
        watch.progress.finish(action, item)


def _read(verified: Path) -> bytes:
    with open_regular(verified) as file:
        data = b"".join(file.chunks())
    remove_file(verified)
    return data
