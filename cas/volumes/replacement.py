"""Whether a volume can certainly be made, so that the one before it may be removed first.

Certain is what has been done: layers are unpacked while the old volume is still there. Only where
there is no room for that before the old volume's data is gone, the image's blobs are read to their
ends and compared with their digests, and the room is reckoned. Then nothing can fail any more but
layers that are no sound archives, and others who take the room.
"""

__all__ = ["Replacement"]

import logging

from cas.errors import NoSpaceError, SnapshotNotFoundError
from cas.model.cancellation import Cancellation
from cas.model.progress import Progress
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.reading import BlobReading
from cas.store.image.catalogue import ImageCatalogue
from cas.store.image.resolution import Layer, ResolvedImage
from cas.store.layers.size import estimate_layer
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.space import Space

_LOGGER = logging.getLogger(__name__)


class Replacement:
    """Makes certain.

    Args:
        backing: The store.
        leasing: Makes leases.
        images: Finds images.
        unpack: Unpacks their layers.
    """

    def __init__(
        self, backing: Backing, leasing: Leasing, images: ImageCatalogue, unpack: Unpack
    ) -> None:
        self._backing = backing
        self._leasing = leasing
        self._images = images
        self._unpack = unpack
        self._reading = BlobReading(backing, BlobFiles(backing))

    def make_certain(
        self, image: str, freed: int, *, cancel: Cancellation | None, progress: Progress
    ) -> None:
        """Return if a container volume of the image can be made, with ``freed`` bytes more room.

        Raises:
            ImageNotFoundError: There is no such image.
            ContentMissingError: A blob of it is not in the store.
            CorruptBlobError: A blob is not what its digest says.
            LayerError: A layer cannot be unpacked.
            NoSpaceError: There would be too little room all the same.
        """
        resolved = self._images.resolve(image)
        if self._unpack.is_unpacked(resolved):
            return
        try:
            with self._leasing.hold("replace") as lease:
                self._unpack.unpack(resolved, lease, cancel=cancel, progress=progress)
        except NoSpaceError:
            missing = self._needed(resolved) - Space(self._backing).balance()
            if missing > freed:
                raise
            _LOGGER.info("room comes from the old volume image=%s missing=%d", image, missing)
            for layer in resolved.layers:
                self._reading.verify(layer.descriptor.digest, cancel=cancel, progress=progress)

    def _needed(self, resolved: ResolvedImage) -> int:
        return sum(
            estimate_layer(self._backing.content, layer.descriptor)
            for layer in resolved.layers
            if not self._stands(layer)
        )

    def _stands(self, layer: Layer) -> bool:
        try:
            self._backing.snapshots.stat(str(layer.chain_id))
        except SnapshotNotFoundError:
            return False
        return True
