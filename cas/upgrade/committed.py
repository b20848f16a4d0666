"""Which committed snapshots of an old store something in the newer one stands for.

A layer is named by what it holds. It need not stay where the newer store has it or can unpack it,
nor where nothing but its image kept it: the image has come in by now, or is gone.
"""

__all__ = ["Committed"]

from contextlib import suppress

from cas.errors import CasError, InvalidNameError, SnapshotNotFoundError
from cas.model.digest import ChainID
from cas.model.labels import GC_ROOT
from cas.model.records import SnapshotInfo
from cas.store.backing import Backing
from cas.store.image.images import Images

_NO_LAYER = "it was committed and is no layer of an image; copy what it holds by hand"
_KEPT_LAYER = "its own label keeps this layer, and no image of the newer store has it"
_IS_THERE = "the newer store has this layer"
_IS_OF_IMAGE = "an image of the newer store has this layer, from which it is unpacked again"
_IS_OF_NONE = "its image is gone, and nothing that came in stands on it"


class Committed:
    """Judges them, once the images have come in.

    Args:
        backing: The newer store.
        images: Its images.
    """

    def __init__(self, backing: Backing, images: Images) -> None:
        self._backing = backing
        self._of_images: set[ChainID] = set()
        for record in images.iter_images():
            with suppress(CasError):  # what cannot be resolved cannot be unpacked either
                self._of_images |= {each.chain_id for each in images.resolve(record.name).layers}

    def why_kept(self, committed: SnapshotInfo) -> str:
        """Tell why an old store has to stay for one; empty if it need not."""
        try:
            layer = ChainID.parse(committed.name)
        except InvalidNameError:
            return _NO_LAYER
        is_kept = committed.labels.get(GC_ROOT) and self._stand_in(layer) == _IS_OF_NONE
        return _KEPT_LAYER if is_kept else ""

    def why_gone(self, committed: SnapshotInfo) -> str:
        """Tell why one that need not stay goes with its store."""
        return self._stand_in(ChainID.parse(committed.name))

    def _stand_in(self, layer: ChainID) -> str:
        try:
            self._backing.snapshots.stat(str(layer))
        except SnapshotNotFoundError:
            return _IS_OF_IMAGE if layer in self._of_images else _IS_OF_NONE
        return _IS_THERE
