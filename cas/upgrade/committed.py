"""Which committed snapshots of an old store nothing in the newer one can stand for."""

__all__ = ["why_kept"]

from contextlib import suppress

from cas.errors import CasError, InvalidNameError, SnapshotNotFoundError
from cas.model.digest import ChainID
from cas.model.labels import GC_ROOT
from cas.model.records import SnapshotInfo
from cas.store.backing import Backing
from cas.store.image.images import Images

_NO_LAYER = "it was committed and is no layer of an image; copy what it holds by hand"
_KEPT_LAYER = "its own label keeps this layer, and no image of the newer store has it"


def why_kept(committed: SnapshotInfo, backing: Backing, images: Images) -> str:
    """Tell why an old store has to stay for a committed snapshot; empty if it need not.

    A layer is named by what it holds. It need not stay where the newer store has it or can unpack
    it, nor where nothing but its image kept it: the image has come in by now, or is gone.

    Args:
        committed: Of the old store.
        backing: The newer store.
        images: Its images.
    """
    try:
        layer = ChainID.parse(committed.name)
    except InvalidNameError:
        return _NO_LAYER
    if not committed.labels.get(GC_ROOT):
        return ""
    stands = _is_there(layer, backing) or _is_of_image(layer, images)
    return "" if stands else _KEPT_LAYER


def _is_there(layer: ChainID, backing: Backing) -> bool:
    try:
        backing.snapshots.stat(str(layer))
    except SnapshotNotFoundError:
        return False
    return True


def _is_of_image(layer: ChainID, images: Images) -> bool:
    for record in images.iter_images():
        with suppress(CasError):  # what cannot be resolved cannot be unpacked either
            if any(each.chain_id == layer for each in images.resolve(record.name).layers):
                return True
    return False
