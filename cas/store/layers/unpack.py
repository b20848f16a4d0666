"""Turns the layers of an image into committed snapshots; a use case of the store.

Invariants: a layer is unpacked once per chain ID, whoever asks; its snapshot is committed only
after the uncompressed bytes matched the diff ID of the image config and after its files are on
disk; everything happens under the caller's lease, and an extraction that fails, is cancelled or
is killed leaves a key that nobody will ever take for a layer. Does not create images or volumes.
"""

__all__ = ["Unpack"]

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from cas.errors import (
    AlreadyExistsError,
    BlobNotFoundError,
    CasError,
    ContentMissingError,
    DiffIDMismatchError,
    LimitExceededError,
    LockTimeoutError,
    NoSpaceError,
)
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import ChainID
from cas.model.labels import DURABLE, GC_REF_SNAPSHOT, SNAPSHOT_REF, UNCOMPRESSED
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import Mount
from cas.store.backing import Backing
from cas.store.image.resolution import Layer, ResolvedImage
from cas.store.layers.chain import LayerChain
from cas.store.layers.durability import LayerDurability, upper_directory
from cas.store.layers.extraction_key import extraction_key
from cas.store.layers.size import HEAD_BYTES, TAIL_BYTES, estimate_unpacked_bytes
from cas.store.layers.watch import LayerWatch
from cas.store.leasing import Lease
from cas.store.locking import Locks
from cas.store.prune.reserve import room_to_remove
from cas.store.space import Reservation, Space

_LOGGER = logging.getLogger(__name__)

_LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
"""The one type with which every containerd detects gzip, zstd and plain tar by content."""

_ATTEMPTS = 3


class Unpack:
    """Unpacks images.

    Args:
        backing: The store.
        locks: Its locks.
    """

    def __init__(self, backing: Backing, locks: Locks) -> None:
        self._backing = backing
        self._locks = locks
        self._space = Space(backing)
        self._durability = LayerDurability(backing)
        self._chain = LayerChain(backing, locks)

    def unpack(
        self,
        resolved: ResolvedImage,
        lease: Lease,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ChainID | None:
        """See to it that the image's top snapshot stands, durable and held by ``lease``.

        Idempotent; layers that stand are not touched. Blocks while somebody else unpacks one of
        the same layers and shares the result. After failure the layers that were finished stay as
        long as something holds them, so that a repetition goes on from there; of the failed one
        nothing is left.

        Args:
            resolved: The image, for one platform.
            lease: Held until something refers to the result.
            cancel: Stops the work between two looks, a quarter of a second.
            progress: Told about each layer that is really unpacked, in compressed bytes.

        Returns:
            The name of the top snapshot, None for an image without layers.

        Raises:
            DiffIDMismatchError: A layer is not the one that the config names.
            LayerError: containerd cannot read a layer.
            LimitExceededError: A layer expands beyond the limit.
            NoSpaceError: The file system has, or would have, too little room.
            DaemonVersionError: Nobody could make the layers durable.
            InterruptedOperationError: ``cancel`` was set.
            LeaseNotFoundError: The lease vanished.
            LockTimeoutError: Others kept removing a layer's snapshot.
            ContentMissingError: A layer is not in the store.
        """
        layers = resolved.layers
        chain_ids = [layer.chain_id for layer in layers]
        standing = self._chain.find_standing(chain_ids, lease)
        if standing < len(layers):
            # Its labels keep the layers, should the image be removed meanwhile.
            lease.pin_blob(resolved.manifest.digest)
        for position in range(standing, len(layers)):
            parent = str(chain_ids[position - 1]) if position else ""
            self._ensure_layer(layers[position], parent, lease, cancel, progress)
        if layers:
            self._record(resolved)
        return chain_ids[-1] if chain_ids else None

    def is_unpacked(self, resolved: ResolvedImage) -> bool:
        """Tell at little cost whether :meth:`unpack` would find nothing to do.

        Nothing is pinned, so that the snapshot may be gone the next moment: whoever builds on it
        must be ready for that.
        """
        if not resolved.layers:
            return True
        top = resolved.layers[-1].chain_id
        return self._chain.is_durable(top) and self._is_recorded(resolved)

    def _ensure_layer(
        self,
        layer: Layer,
        parent: str,
        lease: Lease,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        for attempt in range(_ATTEMPTS):
            if cancel is not None:
                cancel.check()
            with self._locks.chain(layer.chain_id, cancel=cancel):
                if self._chain.pinned(layer.chain_id, lease) is None:
                    try:
                        self._unpack_layer(layer, parent, lease, cancel, progress)
                    except AlreadyExistsError:
                        # A client that knows none of our locks was faster; look at its result.
                        if attempt == _ATTEMPTS - 1:
                            raise
                    else:
                        return
            if self._chain.find_standing([layer.chain_id], lease):
                return
        raise LockTimeoutError(
            f"snapshot {layer.chain_id} was made and removed by others {_ATTEMPTS} times while it "
            "was being unpacked; try again",
            snapshot=layer.chain_id,
        )

    def _unpack_layer(
        self,
        layer: Layer,
        parent: str,
        lease: Lease,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        item = str(layer.descriptor.digest)
        progress.start("unpack", item, layer.descriptor.size)
        try:
            estimate = self._estimate(layer.descriptor)
            with self._space.reserve(estimate, f"unpacking layer {item}") as room:
                self._extract(layer, parent, lease, room, cancel)
            progress.advance("unpack", item, layer.descriptor.size)
        except BlobNotFoundError as error:
            raise ContentMissingError(
                f"layer {item} is not in the store; import or pull the image again",
                digest=layer.descriptor.digest,
            ) from error
        finally:
            progress.finish("unpack", item)

    def _estimate(self, layer: Descriptor) -> int:
        content = self._backing.content
        head = b"".join(content.read(layer.digest, size=min(HEAD_BYTES, layer.size)))
        offset = max(0, layer.size - TAIL_BYTES)
        tail = b"".join(content.read(layer.digest, offset=offset, size=layer.size - offset))
        return estimate_unpacked_bytes(head, tail, layer.size)

    def _extract(
        self,
        layer: Layer,
        parent: str,
        lease: Lease,
        room: Reservation,
        cancel: Cancellation | None,
    ) -> None:
        backing = self._backing
        key = extraction_key(layer.chain_id)
        labels = {SNAPSHOT_REF: str(layer.chain_id)}
        with self._extraction(key, parent, lease, labels) as mounts:
            upper = upper_directory(mounts)
            daemon_syncs = self._durability.require_way(upper)
            watch = LayerWatch(
                layer.descriptor,
                backing.limits,
                unpacked_bytes=self._metered(key, room),
                room=upper or backing.blobs_directory,
                keep_alive=lease.keep_alive,
                cancel=cancel,
            )
            watch()
            descriptor = Descriptor(
                _LAYER_MEDIA_TYPE, layer.descriptor.digest, layer.descriptor.size
            )
            applied = backing.diff.apply(
                descriptor, mounts, lease.id, sync=daemon_syncs, watch=watch
            )
            watch.check_size(applied.size)
            _verify(layer, applied)
            if upper is not None:
                self._durability.sync(upper)
            # The label speaks for the parents too; one in use may have had to stay as it was.
            if not parent or self._chain.is_durable(ChainID.parse(parent)):
                labels[DURABLE] = self._durability.now()
            backing.snapshots.commit(str(layer.chain_id), key, lease.id, labels)
        _LOGGER.info(
            "layer unpacked digest=%s snapshot=%s bytes=%d",
            layer.descriptor.digest,
            layer.chain_id,
            applied.size,
        )

    def _metered(self, key: str, room: Reservation) -> Callable[[], int]:
        """Measure a snapshot and give back what of the reserved room it took by now."""
        seen = 0

        def measure() -> int:
            nonlocal seen
            size = self._backing.snapshots.usage(key).size
            room.consume(max(0, size - seen))
            seen = max(seen, size)
            return size

        return measure

    @contextmanager
    def _extraction(
        self, key: str, parent: str, lease: Lease, labels: Mapping[str, str]
    ) -> Iterator[list[Mount]]:
        """Hold the snapshot that a layer is unpacked into; its key is gone after any error."""
        try:
            yield self._backing.snapshots.prepare(key, parent, lease.id, labels)
        except BaseException as error:
            try:
                self._abandon(key, collect=isinstance(error, NoSpaceError | LimitExceededError))
            except CasError as second:
                error.add_note(f"snapshot {key!r} could not be removed: {second}")
            raise

    def _abandon(self, key: str, *, collect: bool) -> None:
        with room_to_remove(self._backing.layout):
            self._backing.snapshots.remove(key)
            if collect:
                # Removing drops the record; the files that fill the disk go with a collection.
                self._backing.leases.collect_garbage()

    def _record(self, resolved: ResolvedImage) -> None:
        """Label layers with their diff IDs and the config with the snapshot that it keeps.

        The config's label comes last: where it is right, the others are.
        """
        if self._is_recorded(resolved):
            return
        content = self._backing.content
        for layer in resolved.layers:
            digest, diff_id = layer.descriptor.digest, str(layer.diff_id)
            # A layer whose snapshot stands is not needed and may be gone.
            with suppress(BlobNotFoundError):
                if content.info(digest).labels.get(UNCOMPRESSED) != diff_id:
                    content.update_labels(digest, {UNCOMPRESSED: diff_id})
        config = resolved.config_descriptor.digest
        content.update_labels(config, {self._snapshot_label: str(resolved.layers[-1].chain_id)})

    def _is_recorded(self, resolved: ResolvedImage) -> bool:
        labels = self._backing.content.info(resolved.config_descriptor.digest).labels
        return labels.get(self._snapshot_label) == str(resolved.layers[-1].chain_id)

    @property
    def _snapshot_label(self) -> str:
        return f"{GC_REF_SNAPSHOT}.{self._backing.snapshotter}"


def _verify(layer: Layer, applied: Descriptor) -> None:
    if applied.digest.hex != layer.diff_id.hex:
        raise DiffIDMismatchError(
            f"layer {layer.descriptor.digest} unpacks to diff ID {applied.digest}, but the image "
            f"config says {layer.diff_id}; the image is broken, import it again from its source",
            digest=layer.descriptor.digest,
            expected=layer.diff_id,
            actual=applied.digest,
        )
