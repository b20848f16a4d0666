"""Merges an old store into the one that stands beside it, once containerd can be asked.

A second containerd, on the old root and for as long as this lasts, tells what is in it: nothing of
its files is parsed here. The newer store's metadata is never replaced: an image comes in where no
image has its name, a snapshot where a converted container needs it, and every blob by its digest.
What was merged is told from what was not by looking at both; an old store in which nothing is left
that the newer one lacks is removed.
"""

__all__ = ["OpenOldStore", "StoreMerge", "attempt"]

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from cas.containerd.client import Containerd
from cas.errors import CasError, InterruptedOperationError, InUseError, UnavailableError
from cas.fsops.durable import remove_file
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import PIN_REASON, PINNED_BY_MOVE
from cas.model.progress import Progress
from cas.model.records import SnapshotKind
from cas.store.backing import Backing
from cas.store.content.blobs import Blobs
from cas.store.image.images import Images
from cas.store.layers.unpack import Unpack
from cas.upgrade.committed import Committed
from cas.upgrade.image_merge import merge_image, named_image
from cas.upgrade.merged import Merged, MergedKind
from cas.upgrade.old_contents import OldContents
from cas.upgrade.old_records import OldRecords
from cas.upgrade.snapshot_merge import SnapshotMerge

_log = logging.getLogger(__name__)
_NAME_TAKEN = "name taken: the newer store has %s under it; what only this one has stays as blobs"
_NOT_WAITED_FOR = "no container waits for it"

OpenOldStore = Callable[[Path], AbstractContextManager[Containerd]]
"""Runs a containerd on an old root as long as the context lasts."""


class StoreMerge:
    """Merges old stores into one store.

    Args:
        backing: The store.
        blobs: Takes blobs in.
        images: Its images.
        unpack: Unpacks them.
        open_old: Opens an old store.
        cancel: Stops the work between two chunks.
        progress: Told of every chunk.
    """

    def __init__(
        self,
        backing: Backing,
        *,
        blobs: Blobs,
        images: Images,
        unpack: Unpack,
        open_old: OpenOldStore,
        cancel: Cancellation,
        progress: Progress,
    ) -> None:
        self._backing = backing
        self._blobs = blobs
        self._images = images
        self._unpack = unpack
        self._open_old = open_old
        self._cancel = cancel
        self._progress = progress

    def blobs(self, root: Path) -> Iterator[Path]:
        """Give the files of the blobs that an old store still has."""
        return OldContents(root, self._backing).files()

    def merge(self, root: Path, wanted: Iterable[str]) -> Iterator[Merged]:
        """Merge one store; idempotent, and what fails does not keep the rest.

        Args:
            root: The old store, on which no containerd runs.
            wanted: Keys of the snapshots that converted containers need.

        Yields:
            What came in, failed, is left or goes with the store. The store last, with what keeps
            it; or first with an error, if it cannot be opened or read, and then only its blobs come
            in.

        Raises:
            InUseError: A containerd runs on the old store.
            UnavailableError: The store's containerd does not answer.
            InterruptedOperationError: The work was stopped.
        """
        with ExitStack() as stack:
            try:
                old = stack.enter_context(self._open_old(root))
                records = OldRecords.read(old)
            except (InUseError, InterruptedOperationError):
                raise
            except CasError as error:
                _log.warning("old store cannot be opened path=%s error=%s", root, error)
                stack.close()  # no containerd runs on the blobs that go
                yield Merged(MergedKind.STORE, str(root), error)
                yield from self._merge_blobs(OldContents(root, self._backing))
                return
            contents = OldContents(root, self._backing, records.labels)
            snapshots = SnapshotMerge(
                old,
                self._backing,
                self._images,
                self._unpack,
                cancel=self._cancel,
                progress=self._progress,
            )
            yield from self._merge_images(records, contents)
            committed = Committed(self._backing, self._images)
            yield from self._merge_snapshots(records, snapshots, committed, frozenset(wanted))
            yield from self._merge_blobs(contents)
            rest = self._rest(records, contents, snapshots, committed)
            if not rest:
                yield from self._layers(records, committed)
        if rest:
            _log.warning("old store stays path=%s reason=%r", root, rest)
        yield Merged(MergedKind.STORE, str(root), reason=rest)

    def _merge_images(self, old: OldRecords, contents: OldContents) -> Iterator[Merged]:
        for record in old.images:
            named = named_image(self._backing, record.name)
            if named is None:
                merge = partial(
                    merge_image,
                    record,
                    contents,
                    self._backing,
                    self._images,
                    platform=self._images.platform,
                    cancel=self._cancel,
                    progress=self._progress,
                )
                yield attempt(MergedKind.IMAGE, record.name, merge)
            else:
                # Else it came in before, and a kill kept that from being told.
                is_other = named.target.digest != record.target.digest
                reason = _NAME_TAKEN % named.target.digest if is_other else ""
                yield Merged(MergedKind.IMAGE, record.name, reason=reason)

    def _merge_snapshots(
        self,
        old: OldRecords,
        snapshots: SnapshotMerge,
        committed: Committed,
        wanted: frozenset[str],
    ) -> Iterator[Merged]:
        for info in old.snapshots:
            if info.kind is SnapshotKind.COMMITTED:
                if reason := committed.why_kept(info):
                    yield Merged(MergedKind.SNAPSHOT, info.name, reason=reason)
            elif info.name in wanted and snapshots.lacks(info.name):
                yield self._bring(snapshots, info.name)
            else:
                reason = "" if snapshots.has_copy(info) else _NOT_WAITED_FOR
                yield Merged(MergedKind.SNAPSHOT, info.name, reason=reason)

    def _bring(self, snapshots: SnapshotMerge, key: str) -> Merged:
        try:
            found = snapshots.find(key)
        except InterruptedOperationError:
            raise
        except CasError as error:  # of the old store alone, whatever it is
            return _failed(MergedKind.SNAPSHOT, key, error)
        return attempt(MergedKind.SNAPSHOT, key, partial(snapshots.bring, found))

    def _merge_blobs(self, contents: OldContents) -> Iterator[Merged]:
        for path in contents.files():
            yield attempt(MergedKind.BLOB, str(path), partial(self._take_in, path, contents))

    def _take_in(self, path: Path, contents: OldContents) -> None:
        digest = Digest(path.name)
        self._blobs.ingest(
            path,
            digest=digest,
            # An image that comes in later keeps it then.
            labels={**contents.labels(digest), PIN_REASON: PINNED_BY_MOVE},
            move=True,
            cancel=self._cancel,
            progress=self._progress,
        )
        remove_file(path)

    def _layers(self, old: OldRecords, committed: Committed) -> Iterator[Merged]:
        """Tell of each layer that goes with the store, before it does."""
        for info in old.snapshots:
            if info.kind is SnapshotKind.COMMITTED:
                reason = committed.why_gone(info)
                yield Merged(MergedKind.SNAPSHOT, info.name, reason=reason, goes=True)

    def _rest(
        self,
        old: OldRecords,
        contents: OldContents,
        snapshots: SnapshotMerge,
        committed: Committed,
    ) -> str:
        """Tell what the old store has that the store lacks; empty for nothing."""
        namespaces = old.namespaces - {self._backing.namespace}
        if namespaces:
            return f"it has other namespaces: {', '.join(sorted(namespaces))}"
        for record in old.images:
            if named_image(self._backing, record.name) is None:
                return f"image {record.name!r} did not come in"
        for info in old.snapshots:
            if info.kind is SnapshotKind.COMMITTED:
                reason = committed.why_kept(info)
            else:
                reason = "" if snapshots.has_copy(info) else _NOT_WAITED_FOR
            if reason:
                return f"snapshot {info.name!r} did not come in: {reason}"
        unknown = sum(1 for _ in contents.snapshot_directories()) - len(old.snapshots)
        if unknown > 0:
            return f"{unknown} of its snapshots' directories are in no database"
        blob = next(contents.files(), None)
        return "" if blob is None else f"blob {blob.name} did not come in"


def attempt(kind: MergedKind, name: str, act: Callable[[], object]) -> Merged:
    """Do something that may fail for one thing alone, and asks no old store.

    Raises:
        UnavailableError: The store's containerd does not answer.
        InterruptedOperationError: The work was stopped.
    """
    try:
        act()
    except (UnavailableError, InterruptedOperationError):
        raise
    except CasError as error:
        return _failed(kind, name, error)
    _log.info("merged from an old store kind=%s name=%s", kind.value, name)
    return Merged(kind, name)


def _failed(kind: MergedKind, name: str, error: CasError) -> Merged:
    _log.warning("not merged kind=%s name=%s error=%s", kind.value, name, error)
    return Merged(kind, name, error)
