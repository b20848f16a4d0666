"""What it takes to turn one layer into a snapshot, wherever its files are written first.

Three steps, which the ways of unpacking put together: hold an active snapshot, let containerd
apply the layer under watch and verify it, commit. Each may fail; what it had made is then gone.
"""

__all__ = ["Extraction", "LayerExtraction"]

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cas.errors import (
    BlobNotFoundError,
    CasError,
    DiffIDMismatchError,
    LimitExceededError,
    NoSpaceError,
)
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import ChainID
from cas.model.labels import DURABLE, SNAPSHOT_REF
from cas.model.progress import Progress
from cas.model.records import Mount
from cas.store.backing import Backing
from cas.store.image.resolution import Layer, missing_layer
from cas.store.layers.chain import LayerChain
from cas.store.layers.durability import LayerDurability, upper_directory
from cas.store.layers.extraction_key import extraction_key
from cas.store.layers.size import estimate_layer
from cas.store.layers.watch import LayerWatch
from cas.store.leasing import Lease
from cas.store.prune.reserve import room_to_remove
from cas.store.space import Reservation, Space

_LOGGER = logging.getLogger(__name__)

_RECLAIM_ATTEMPTS = 20
_RECLAIM_PAUSE_SECONDS = 0.1

_LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
"""The one type with which every containerd detects gzip, zstd and plain tar by content."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """An active snapshot that is to become a layer.

    Args:
        layer: The layer.
        parent: Name of the snapshot below, empty for the first layer.
        key: Its key.
        mounts: How it is written to.
    """

    layer: Layer
    parent: str
    key: str
    mounts: list[Mount]


class LayerExtraction:
    """The steps, for one store.

    Args:
        backing: The store.
        chain: Knows which snapshots are durable.
    """

    def __init__(self, backing: Backing, chain: LayerChain) -> None:
        self._backing = backing
        self._chain = chain
        self._space = Space(backing)
        self._durability = LayerDurability(backing)

    @contextmanager
    def held(self, layer: Layer, parent: str, lease: Lease) -> Iterator[Extraction]:
        """Hold an active snapshot for a layer; it is gone after any error.

        Raises:
            AlreadyExistsError: The layer's snapshot was made by somebody else.
            SnapshotNotFoundError: The parent is gone.
        """
        key = extraction_key(layer.chain_id)
        labels = {SNAPSHOT_REF: str(layer.chain_id)}
        mounts: list[Mount] = []
        try:
            mounts = self._backing.snapshots.prepare(key, parent, lease.id, labels)
            yield Extraction(layer, parent, key, mounts)
        except BaseException as error:
            try:
                with room_to_remove(self._backing.layout):
                    self._backing.snapshots.remove(key)
                    if isinstance(error, NoSpaceError | LimitExceededError):
                        self._reclaim(key, upper_directory(mounts), lease)
            except CasError as second:
                error.add_note(f"snapshot {key!r} could not be removed: {second}")
            raise

    def _reclaim(self, key: str, files: Path | None, lease: Lease) -> None:
        """Get the room of a removed snapshot back at once, which fills the disk perhaps.

        Removing drops the record; the files go with a collection. One that comes while containerd
        still writes leaves them behind, and the next one that has a snapshot to remove takes them.
        """
        self._backing.leases.collect_garbage()
        pause = threading.Event()
        for _ in range(_RECLAIM_ATTEMPTS):
            if files is None or not files.parent.exists():
                return
            pause.wait(_RECLAIM_PAUSE_SECONDS)
            self._backing.snapshots.prepare(key, "", lease.id, {})
            self._backing.snapshots.remove(key)
            self._backing.leases.collect_garbage()
        _LOGGER.warning("files of a stopped unpack are left to a later collection path=%s", files)

    def apply(
        self,
        layer: Layer,
        mounts: list[Mount],
        lease: Lease,
        *,
        sync: bool,
        measure: Callable[[], int],
        room: Path | None,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        """Let containerd write a layer's files, and verify what it read.

        After failure a part of the files is there, for the caller to remove.

        Args:
            layer: The layer.
            mounts: Where to write.
            lease: Holds the layer's blob.
            sync: Whether containerd is to sync the files.
            measure: Tells the bytes that were written so far.
            room: A directory on the file system that fills up.
            cancel: Stops the work.
            progress: Told about the layer, in compressed bytes.

        Raises:
            ContentMissingError: The layer is not in the store.
            DiffIDMismatchError: It is not the one that the config names.
            LayerError: containerd cannot read it.
            LimitExceededError: It expands beyond the limit.
            NoSpaceError: The file system has, or would have, too little room.
        """
        item = str(layer.descriptor.digest)
        progress.start("unpack", item, layer.descriptor.size)
        try:
            expected = estimate_layer(self._backing.content, layer.descriptor)
            with self._space.reserve(expected, f"unpacking layer {item}") as promise:
                watch = LayerWatch(
                    layer.descriptor,
                    self._backing.limits,
                    unpacked_bytes=_metered(measure, promise),
                    room=room,
                    keep_alive=lease.keep_alive,
                    cancel=cancel,
                )
                self._apply(layer, mounts, lease, sync, watch)
            progress.advance("unpack", item, layer.descriptor.size)
        except BlobNotFoundError as error:
            raise missing_layer(layer.descriptor) from error
        finally:
            progress.finish("unpack", item)

    def _apply(
        self,
        layer: Layer,
        mounts: list[Mount],
        lease: Lease,
        sync: bool,  # noqa: FBT001 - private, and named at its one call
        watch: LayerWatch,
    ) -> None:
        watch()
        blob = layer.descriptor
        descriptor = Descriptor(_LAYER_MEDIA_TYPE, blob.digest, blob.size)
        applied = self._backing.diff.apply(descriptor, mounts, lease.id, sync=sync, watch=watch)
        watch.check_size(applied.size)
        if applied.digest.hex != layer.diff_id.hex:
            raise DiffIDMismatchError(
                f"layer {blob.digest} unpacks to diff ID {applied.digest}, but the image config "
                f"says {layer.diff_id}; the image is broken, import it again from its source",
                digest=blob.digest,
                expected=layer.diff_id,
                actual=applied.digest,
            )

    def commit(self, extraction: Extraction, lease: Lease) -> None:
        """Make the layer's snapshot; its files are on disk already.

        Raises:
            AlreadyExistsError: Somebody else made it.
        """
        name, parent = str(extraction.layer.chain_id), extraction.parent
        labels = {SNAPSHOT_REF: name}
        # The label speaks for the parents too; one in use may have had to stay as it was.
        if not parent or self._chain.is_durable(ChainID.parse(parent)):
            labels[DURABLE] = self._durability.now()
        self._backing.snapshots.commit(name, extraction.key, lease.id, labels)
        digest = extraction.layer.descriptor.digest
        _LOGGER.info("layer unpacked digest=%s snapshot=%s", digest, name)


def _metered(measure: Callable[[], int], promise: Reservation) -> Callable[[], int]:
    """Give back what of the reserved room is taken by now, whenever it is measured."""
    seen = 0

    def measured() -> int:
        nonlocal seen
        size = measure()
        promise.consume(max(0, size - seen))
        seen = max(seen, size)
        return size

    return measured
