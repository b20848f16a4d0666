"""Takes what older software left into the store, once containerd can be asked.

Verified downloads: each is hashed again, becomes a pinned blob if it is not one already, and then
goes from where it was. Old stores beside which a newer one stands: see
:mod:`cas.upgrade.store_merge`.
"""

__all__ = ["OldContent"]

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from cas.errors import IntegrityError, InUseError, LockTimeoutError
from cas.fsops.durable import remove_file
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.progress import Progress
from cas.store.content.blobs import Blobs
from cas.store.kept_downloads import iter_kept, let_go
from cas.upgrade.device import is_vacant
from cas.upgrade.journal import as_text
from cas.upgrade.merge_account import MergeAccount
from cas.upgrade.merge_entry import MergeEntry
from cas.upgrade.merged import Merged, MergedKind
from cas.upgrade.old_store import old_stores
from cas.upgrade.store_merge import StoreMerge, attempt
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
        clock: Gives the current time, aware.
        cancel: Stops the work between two chunks.
        progress: Told of every chunk.
    """

    def __init__(
        self,
        layout: Layout,
        blobs: Blobs,
        merge: StoreMerge,
        upgrade: Upgrade,
        clock: Callable[[], datetime],
        *,
        cancel: Cancellation,
        progress: Progress,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._blobs = blobs
        self._merge = merge
        self._upgrade = upgrade
        self._cancel = cancel
        self._progress = progress

    def take_in(self) -> Iterator[Merged]:
        """Take everything in; idempotent, and what fails stays where it is.

        Yields:
            What came in, failed or is left, as it does; the account of merges has it when it ends.

        Raises:
            UnavailableError: containerd does not answer.
            InterruptedOperationError: The work was stopped.
            StorageError: A directory cannot be listed.
        """
        with MergeAccount(self._layout.upgrade_merges) as account:
            account.settle(self._blobs.missing, time=self._now())
            yield from self._noted(account, "", self._take_in_downloads(account))
            if is_vacant(self._layout.case):
                return
            for root in old_stores(self._layout):
                store = as_text(root)
                account.expect(store, self._merge.blobs(root), time=self._now())
                yield from self._noted(account, store, self._merge_store(root, account))
                account.settle(self._blobs.missing, time=self._now())

    def _noted(
        self, account: MergeAccount, store: str, merges: Iterator[Merged]
    ) -> Iterator[Merged]:
        for merged in merges:
            account.note(MergeEntry.of(merged, store=store, time=self._now()))
            yield merged

    def _take_in_downloads(self, account: MergeAccount) -> Iterator[Merged]:
        kept = list(iter_kept(self._layout))
        account.expect("", (path for _, path in kept if path.exists()), time=self._now())
        for digest, path in kept:
            if path.exists():
                yield attempt(MergedKind.BLOB, str(path), partial(self._ingest, path, digest))
            else:  # taken in by somebody who pulled it
                let_go(self._layout, digest)

    def _merge_store(self, root: Path, account: MergeAccount) -> Iterator[Merged]:
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
            yield attempt(MergedKind.STORE, str(root), partial(self._remove, root, account))

    def _remove(self, root: Path, account: MergeAccount) -> None:
        account.require_written()  # nobody can tell again what was in it
        self._upgrade.remove_merged(root, cancel=self._cancel, progress=self._progress)

    def _wanted(self) -> Iterator[str]:
        """Give the keys of the snapshots that containers need."""
        yield from self._upgrade.lacking_snapshots()
        for record in iter_records(self._layout):
            if record.converted:
                yield record.snapshot_key

    def _ingest(self, path: Path, digest: Digest) -> None:
        try:
            self._blobs.ingest(
                path, digest=digest, move=True, cancel=self._cancel, progress=self._progress
            )
        except IntegrityError:  # it is no longer what was verified, and goes as any leftover
            let_go(self._layout, digest)
            raise
        remove_file(path)
        let_go(self._layout, digest)

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")
