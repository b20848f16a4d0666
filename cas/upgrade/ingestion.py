"""Takes what older software left into the store, once containerd can be asked.

Verified downloads: each is hashed again, becomes a pinned blob if it is not one already, and then
goes from where it was. Old stores beside which a newer one stands: see
:mod:`cas.upgrade.store_merge`.
"""

__all__ = ["OldContent"]

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cas.errors import InUseError, LockTimeoutError
from cas.fsops.durable import remove_file
from cas.fsops.locks import lock
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.store.content.blobs import Blobs
from cas.upgrade.device import is_vacant
from cas.upgrade.items import Kind
from cas.upgrade.journal import Journal, Step
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.store_merge import Merged, MergedKind, StoreMerge, attempt
from cas.upgrade.upgrade import Upgrade
from cas.volumes.records import iter_records

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 5.0


class OldContent:
    """What older software left for the store.

    Args:
        layout: Where.
        blobs: Takes files in.
        merge: Merges stores.
        upgrade: Knows what is converted, and what waits for its snapshot.
    """

    def __init__(self, layout: Layout, blobs: Blobs, merge: StoreMerge, upgrade: Upgrade) -> None:
        self._layout = layout
        self._blobs = blobs
        self._merge = merge
        self._upgrade = upgrade

    def take_in(self) -> Iterator[Merged]:
        """Take everything in; idempotent, and what fails stays where it is.

        Yields:
            What came in or failed, as it does.

        Raises:
            UnavailableError: containerd does not answer.
            InterruptedOperationError: The work was stopped.
            StorageError: A directory cannot be listed.
        """
        for path in self._verified():
            yield attempt(MergedKind.BLOB, str(path), partial(self._ingest, path))
        if is_vacant(self._layout.case):
            return
        for root in OldLayout(self._layout.persist).stores:
            if root.is_dir() and not is_vacant(root):
                yield from self._merge_store(root)

    def _merge_store(self, root: Path) -> Iterator[Merged]:
        is_used_up = False
        try:
            with lock(self._layout.upgrade_lock, timeout_seconds=_LOCK_SECONDS):
                for merged in self._merge.merge(root, list(self._wanted())):
                    is_used_up = merged == Merged(MergedKind.STORE, str(root))
                    if not is_used_up:
                        yield merged
        except (InUseError, LockTimeoutError) as error:
            _log.warning("old store not merged path=%s error=%s", root, error)
            yield Merged(MergedKind.STORE, str(root), error)
            return
        if is_used_up:
            remove = partial(self._upgrade.remove_merged, root)
            yield attempt(MergedKind.STORE, str(root), remove)

    def _wanted(self) -> Iterator[str]:
        """Give the keys of the snapshots that containers need."""
        yield from self._upgrade.lacking_snapshots()
        for record in iter_records(self._layout):
            if record.converted:
                yield record.snapshot_key

    def _verified(self) -> Iterator[Path]:
        """Give what a conversion has put into the verifier's directory and is still there."""
        with Journal(self._layout.upgrade_journal, writing=False) as journal:
            entries = journal.entries()
        for entry in entries:
            path = self._layout.persist / entry.target
            if entry.kind == Kind.VERIFIED and entry.step is Step.DONE and path.is_file():
                yield path

    def _ingest(self, path: Path) -> None:
        self._blobs.ingest(path, digest=Digest(path.name), move=True)
        remove_file(path)
