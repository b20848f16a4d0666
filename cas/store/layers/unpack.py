"""Turns the layers of an image into committed snapshots; a use case of the store.

Invariants: a layer is unpacked once per chain ID, whoever asks; its snapshot is committed only
after the uncompressed bytes matched the diff ID of the image config and after its files are on
disk; everything happens under the caller's lease, and an extraction that fails, is cancelled or
is killed leaves a key that nobody will ever take for a layer. Does not create images or volumes.
"""

__all__ = ["Unpack"]

import logging
from collections.abc import Sequence
from contextlib import suppress

from cas.errors import AlreadyExistsError, BlobNotFoundError, LockTimeoutError
from cas.model.cancellation import Cancellation
from cas.model.digest import ChainID
from cas.model.labels import GC_REF_SNAPSHOT, UNCOMPRESSED
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.backing import Backing
from cas.store.image.resolution import Layer, ResolvedImage
from cas.store.layers.chain import LayerChain
from cas.store.layers.durability import LayerDurability, upper_directory
from cas.store.layers.extraction import LayerExtraction
from cas.store.layers.staged_unpack import StagedUnpack
from cas.store.layers.staging import StagingUnsuitableError
from cas.store.leasing import Lease
from cas.store.locking import Locks

_LOGGER = logging.getLogger(__name__)

_ATTEMPTS = 3


class Unpack:
    """Unpacks images.

    Args:
        backing: The store.
        locks: Its locks.
        workers: Layers of one image unpacked at once, where that gives the same tree.
    """

    def __init__(self, backing: Backing, locks: Locks, *, workers: int) -> None:
        self._backing = backing
        self._locks = locks
        self._durability = LayerDurability(backing)
        self._chain = LayerChain(backing, locks)
        self._extraction = LayerExtraction(backing, self._chain)
        self._staged = StagedUnpack(backing, self._extraction, workers=workers)

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
        the same layers and shares the result. After failure the snapshots that were made stay as
        long as something holds them, so that a repetition goes on from there; nothing else is
        left.

        Args:
            resolved: The image, for one platform.
            lease: Held until something refers to the result.
            cancel: Stops the work between two looks, a quarter of a second.
            progress: Told about each layer that is really unpacked, in compressed bytes, from
                several threads.

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

        def parent(position: int) -> str:
            return str(chain_ids[position - 1]) if position else ""

        standing = self._chain.find_standing(chain_ids, lease)
        if standing < len(layers):
            # Its labels keep the layers, should the image be removed meanwhile.
            lease.pin_blob(resolved.manifest.digest)
        if self._staged.is_suitable(layers[standing:]):
            self._unpack_together(layers[standing:], parent(standing), lease, cancel, progress)
            standing = self._chain.find_standing(chain_ids, lease)
        for position in range(standing, len(layers)):
            self._ensure_layer(layers[position], parent(position), lease, cancel, progress)
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

    def _unpack_together(
        self,
        layers: Sequence[Layer],
        parent: str,
        lease: Lease,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        """Unpack successive layers side by side, as far as that goes."""
        with self._locks.chains([layer.chain_id for layer in layers], cancel=cancel):
            # Others may have made some of them before we had the locks.
            while layers and self._chain.pinned(layers[0].chain_id, lease) is not None:
                parent, layers = str(layers[0].chain_id), layers[1:]
            if not layers:
                return
            try:
                self._staged.unpack(layers, parent, lease, cancel=cancel, progress=progress)
            except (AlreadyExistsError, StagingUnsuitableError) as error:
                _LOGGER.info("layers are unpacked one by one from here reason=%s", error)

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
        snapshots = self._backing.snapshots
        with self._extraction.held(layer, parent, lease) as extraction:
            upper = upper_directory(extraction.mounts)
            self._extraction.apply(
                layer,
                extraction.mounts,
                lease,
                sync=self._durability.require_way(upper),
                measure=lambda: snapshots.usage(extraction.key).size,
                room=upper or self._backing.blobs_directory,
                cancel=cancel,
                progress=progress,
            )
            if upper is not None:
                self._durability.sync(upper)
            self._extraction.commit(extraction, lease)

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
