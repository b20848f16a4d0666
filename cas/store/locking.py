"""Locks between threads and processes, one family per kind of object.

Above ``fsops.locks``. A lock file is shared by all objects whose names fall into the same of 256
buckets, so two rules hold everywhere:

* a thread that holds a lock takes no second one of the same kind, since it may be the same file
  (:meth:`Locks.chains` takes several at once, each file once and in the order of their names);
* kinds are taken in the order store, volume, image, chain, transfer, blob.

The kernel drops a lock with its holder's death; lock files stay and are never removed.
"""

__all__ = ["Locks"]

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.digest import ChainID, Digest
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName


class Locks:
    """Locks of one store; holds nothing itself and may be shared by threads.

    Every method gives a context manager that waits on entry. ``timeout_seconds`` bounds the wait,
    None waits for ever;
    ``cancel`` ends the wait early.

    Raises:
        LockTimeoutError: On entry, when the time is over.
        InterruptedOperationError: On entry, when ``cancel`` was set.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def blob(
        self,
        digest: Digest,
        *,
        timeout_seconds: float | None = None,
        cancel: Cancellation | None = None,
    ) -> AbstractContextManager[object]:
        """One ingest per digest at a time."""
        path = self._layout.lock("blob", digest.hex)
        return lock(path, timeout_seconds=timeout_seconds, cancel=cancel)

    def transfer(
        self,
        digest: Digest,
        *,
        timeout_seconds: float | None = None,
        cancel: Cancellation | None = None,
    ) -> AbstractContextManager[object]:
        """One download of a digest at a time, until it is in the store."""
        path = self._layout.lock("transfer", digest.hex)
        return lock(path, timeout_seconds=timeout_seconds, cancel=cancel)

    def chain(
        self,
        chain_id: ChainID,
        *,
        timeout_seconds: float | None = None,
        cancel: Cancellation | None = None,
    ) -> AbstractContextManager[object]:
        """One unpack per chain ID at a time."""
        path = self._layout.lock("chain", chain_id.hex)
        return lock(path, timeout_seconds=timeout_seconds, cancel=cancel)

    @contextmanager
    def chains(
        self, chain_ids: Iterable[ChainID], *, cancel: Cancellation | None = None
    ) -> Iterator[None]:
        """Unpack several layers together: the locks of all of them."""
        paths = {self._layout.lock("chain", chain_id.hex) for chain_id in chain_ids}
        with ExitStack() as stack:
            for path in sorted(paths):
                stack.enter_context(lock(path, cancel=cancel))
            yield

    def volume(
        self, name: VolumeName, *, timeout_seconds: float | None = None
    ) -> AbstractContextManager[object]:
        """One change of a volume at a time."""
        return lock(self._layout.lock("volume", str(name)), timeout_seconds=timeout_seconds)

    @contextmanager
    def volumes(
        self, names: Iterable[VolumeName], *, timeout_seconds: float | None = None
    ) -> Iterator[None]:
        """Change several volumes together: the locks of all of them."""
        paths = {self._layout.lock("volume", str(name)) for name in names}
        with ExitStack() as stack:
            for path in sorted(paths):
                stack.enter_context(lock(path, timeout_seconds=timeout_seconds))
            yield

    def image(
        self, reference: str, *, timeout_seconds: float | None = None
    ) -> AbstractContextManager[object]:
        """One change of an image record at a time."""
        return lock(self._layout.lock("image", reference), timeout_seconds=timeout_seconds)

    def ledger(self) -> AbstractContextManager[object]:
        """Reading and changing the ledger of space; held for moments only."""
        return lock(self._layout.locks / "ledger")

    def disks(self) -> AbstractContextManager[object]:
        """Counting the disks that there are and adding one or a snapshot; the ledger is inside."""
        return lock(self._layout.locks / "disks")

    def groups(self) -> AbstractContextManager[object]:
        """Changing the note of a group of volumes; held for moments, with a volume's lock."""
        return lock(self._layout.locks / "groups")

    def store(
        self, *, shared: bool = True, timeout_seconds: float | None = None
    ) -> AbstractContextManager[object]:
        """The store as a whole, for what must not run twice at once; other work takes no part."""
        return lock(self._layout.locks / "store", shared=shared, timeout_seconds=timeout_seconds)
