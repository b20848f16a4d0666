"""Brings the snapshot of an old container into the store that stands beside the old one.

The layers below it are unpacked from their image where the store has that, else copied under their
chain IDs. What the container wrote is copied and read back. The copy gets the snapshot's old key,
and counts only when its label says so: whatever a kill leaves goes with the lease that held it.
"""

__all__ = ["OldSnapshot", "SnapshotMerge"]

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cas.containerd.client import Containerd
from cas.errors import (
    AlreadyExistsError,
    CasError,
    ConflictError,
    CopyMismatchError,
    InterruptedOperationError,
    InvalidNameError,
    SnapshotNotFoundError,
)
from cas.fsops.durable import exchange
from cas.fsops.replica import content_digest, replicate
from cas.fsops.trees import allocated_bytes, remove_tree
from cas.model.cancellation import Cancellation
from cas.model.digest import ChainID
from cas.model.labels import DURABLE, GC_ROOT, MERGED_FROM, SNAPSHOT_REF, UNFINISHED
from cas.model.progress import Progress
from cas.model.records import Mount, SnapshotInfo
from cas.store.backing import Backing
from cas.store.image.images import Images, ResolvedImage
from cas.store.layers.durability import upper_directory
from cas.store.layers.extraction_key import extraction_key
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Lease, Leasing
from cas.store.locking import Locks
from cas.store.space import Space

_log = logging.getLogger(__name__)
_COPY = "cas-copy"


@dataclass(frozen=True, slots=True)
class OldSnapshot:
    """What the old store's containerd tells of a snapshot that is to be copied.

    Args:
        chain: The snapshot and what it stands on, topmost first.
        directories: Where each of them is.
    """

    chain: Sequence[SnapshotInfo]
    directories: Sequence[Path]

    @property
    def key(self) -> str:
        """Its key."""
        return self.chain[0].name


class SnapshotMerge:
    """Merges snapshots of one old store.

    Args:
        old: A containerd on the old store.
        backing: The store.
        images: Its images.
        unpack: Unpacks them.
        cancel: Stops the work between two chunks.
        progress: Told of every chunk.
    """

    def __init__(
        self,
        old: Containerd,
        backing: Backing,
        images: Images,
        unpack: Unpack,
        *,
        cancel: Cancellation,
        progress: Progress,
    ) -> None:
        self._old = old
        self._backing = backing
        self._images = images
        self._unpack = unpack
        self._cancel = cancel
        self._progress = progress
        self._leasing = Leasing(backing)
        self._locks = Locks(backing.layout)
        self._space = Space(backing)

    def lacks(self, key: str) -> bool:
        """Whether the store has no snapshot of this key, or one that is not whole."""
        info = self._stat(key)
        return info is None or bool(info.labels.get(UNFINISHED))

    def has_copy(self, original: SnapshotInfo) -> bool:
        """Whether the store has a copy of this very snapshot, and not only one of its key."""
        info = self._stat(original.name)
        return info is not None and info.labels.get(MERGED_FROM) == _made(original)

    def find(self, key: str) -> OldSnapshot:
        """Ask the old store for all that has to be known of a snapshot to copy it.

        Raises:
            SnapshotNotFoundError: The old store has none.
            ConflictError: It is of a kind that cannot be copied.
            UnavailableError: The old store's containerd does not answer.
        """
        chain = self._chain(key)
        directories = _directories(self._old.snapshots.mounts(key))
        if len(directories) != len(chain):
            raise ConflictError(
                f"snapshot {key!r} of the old store has {len(chain)} layers and is mounted from "
                f"{len(directories)} directories; only the overlayfs snapshotter's can be copied",
                key=key,
            )
        return OldSnapshot(chain, directories)

    def bring(self, found: OldSnapshot) -> None:
        """Copy a snapshot that the store lacks, with what it stands on; the old one stays.

        After failure the store has no such snapshot, unless it had a whole one before. The old
        store's containerd is not asked.

        Raises:
            AlreadyExistsError: The store has a whole one of this key, which is not touched.
            InUseError: Something is mounted in it.
            SourceChangedError: Somebody writes to it.
            CopyMismatchError: The copy reads back as something else.
            NoSpaceError: No room.
            InterruptedOperationError: The work was stopped.
        """
        chain, directories = found.chain, found.directories
        layers = [ChainID.parse(info.name) for info in chain[1:]]
        with self._leasing.hold("merge") as lease:
            self._ensure_layers(layers[::-1], directories[:0:-1], lease)
            parent = str(layers[0]) if layers else ""
            self._copy_active(chain[0], parent, directories[0], lease)
        _log.info("snapshot of the old store copied key=%s", found.key)

    def _chain(self, key: str) -> list[SnapshotInfo]:
        """Give the snapshot and what it stands on, topmost first."""
        found = [self._old.snapshots.stat(key)]
        while found[-1].parent:
            found.append(self._old.snapshots.stat(found[-1].parent))
        for info in found[1:]:
            try:
                ChainID.parse(info.name)
            except InvalidNameError as error:
                raise ConflictError(
                    f"snapshot {key!r} of the old store stands on {info.name!r}, which is no "
                    "layer of an image; copy what it holds by hand",
                    key=key,
                ) from error
        return found

    def _stat(self, key: str) -> SnapshotInfo | None:
        try:
            return self._backing.snapshots.stat(key)
        except SnapshotNotFoundError:
            return None

    def _ensure_layers(
        self, layers: Sequence[ChainID], directories: Sequence[Path], lease: Lease
    ) -> None:
        """See to it that the layers stand, lowest first, held by the lease."""
        if layers:
            self._unpack_image(layers[-1], lease)
        parent = ""
        for layer, directory in zip(layers, directories, strict=True):
            with self._locks.chain(layer):
                lease.pin_snapshot(str(layer))
                if self._stat(str(layer)) is None:
                    self._copy_layer(layer, parent, directory, lease)
            parent = str(layer)

    def _unpack_image(self, top: ChainID, lease: Lease) -> None:
        """Unpack the image whose topmost layer this is, if there is one that can be."""
        resolved = self._find_image(top)
        if resolved is None:
            return
        try:
            self._unpack.unpack(resolved, lease, cancel=self._cancel, progress=self._progress)
        except InterruptedOperationError:
            raise
        except CasError as error:
            _log.warning("layers are copied instead of unpacked layer=%s error=%s", top, error)

    def _find_image(self, top: ChainID) -> ResolvedImage | None:
        for record in self._images.iter_images():
            with suppress(CasError):  # what cannot be resolved cannot be unpacked either
                resolved = self._images.resolve(record.name)
                if resolved.layers and resolved.layers[-1].chain_id == top:
                    return resolved
        return None

    def _copy_layer(self, layer: ChainID, parent: str, source: Path, lease: Lease) -> None:
        name, key = str(layer), extraction_key(layer)
        labels = {SNAPSHOT_REF: name}
        mounts = self._backing.snapshots.prepare(key, parent, lease.id, labels)
        try:
            self._fill(mounts, source, name, lease)
            below = self._stat(parent) if parent else None
            # The label speaks for the parents too.
            if not parent or (below is not None and below.labels.get(DURABLE)):
                labels[DURABLE] = self._now()
            self._backing.snapshots.commit(name, key, lease.id, labels)
        except BaseException:
            self._drop(key)
            raise

    def _copy_active(self, original: SnapshotInfo, parent: str, source: Path, lease: Lease) -> None:
        key = original.name
        self._remove_unfinished(key)
        labels = {UNFINISHED: self._now()}
        mounts = self._backing.snapshots.prepare(key, parent, lease.id, labels)
        try:
            self._fill(mounts, source, key, lease)
            whole = {UNFINISHED: None, GC_ROOT: self._now(), MERGED_FROM: _made(original)}
            self._backing.snapshots.update_labels(key, whole)
        except BaseException:
            self._drop(key)
            raise

    def _remove_unfinished(self, key: str) -> None:
        """Remove what a killed run left under a key; a whole one is somebody's data."""
        info = self._stat(key)
        if info is None:
            return
        if not info.labels.get(UNFINISHED):
            raise AlreadyExistsError(
                f"the store has a whole snapshot {key!r} already, which stays as it is; look at "
                "both before one of them is removed",
                key=key,
            )
        self._backing.snapshots.remove(key)

    def _fill(self, mounts: Sequence[Mount], source: Path, name: str, lease: Lease) -> None:
        """Make a new snapshot's directory a copy of another store's, durably."""
        upper = upper_directory(mounts)
        if upper is None:
            raise ConflictError(
                f"the store's snapshots cannot be reached as files, so {name!r} cannot be copied "
                "into it; use the overlayfs snapshotter where its root is visible",
                key=name,
            )

        def advance(amount: int) -> None:
            lease.keep_alive()
            self._cancel.check()
            self._progress.advance("merge", name, amount)

        with self._space.reserve(allocated_bytes(source), f"the copy of snapshot {name!r}"):
            # In the snapshot's own directory, with which containerd removes it.
            copy = upper.with_name(_COPY)
            remove_tree(copy)
            replica = replicate(source, copy, advance=advance)
            after = content_digest(copy, advance=advance)
            if after != replica.digest:
                raise CopyMismatchError(
                    f"the copy of {str(source)!r} reads back as {after}, expected "
                    f"{replica.digest}; it was removed and the original is untouched; see the "
                    "kernel log for errors of the device",
                    path=source,
                    expected=replica.digest,
                    actual=after,
                )
            exchange(copy, upper)
            remove_tree(copy)

    def _drop(self, key: str) -> None:
        try:
            self._backing.snapshots.remove(key)
        except CasError as error:  # recovery removes it with its lease
            _log.warning("unfinished snapshot not removed key=%s error=%s", key, error)

    def _now(self) -> str:
        return self._backing.clock().isoformat(timespec="seconds")


def _made(snapshot: SnapshotInfo) -> str:
    return snapshot.created.isoformat()


def _directories(mounts: Sequence[Mount]) -> list[Path]:
    """Give the directories of a writable snapshot and its layers, topmost first."""
    upper = upper_directory(mounts)
    if upper is None:
        return []
    lower = mounts[0].option("lowerdir")
    return [upper, *(Path(each) for each in lower.split(":"))] if lower else [upper]
