"""Gives the images of an old store their names in the store that stands beside it."""

__all__ = ["merge_image", "named_image"]

from cas.errors import ImageNotFoundError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Platform
from cas.model.progress import Progress
from cas.model.records import ImageRecord
from cas.store.backing import Backing
from cas.store.image.document_walk import ImageGraph
from cas.store.image.images import BlobToLoad, Images
from cas.upgrade.old_contents import OldContents

_OF_STORE = "containerd.io/"
"""Labels that say something to the containerd that has the image: what the collector keeps."""


def named_image(backing: Backing, name: str) -> ImageRecord | None:
    """Give the store's image of exactly this name, if there is one."""
    try:
        return backing.images.get(name)
    except ImageNotFoundError:
        return None


def merge_image(
    record: ImageRecord,
    contents: OldContents,
    backing: Backing,
    images: Images,
    *,
    platform: Platform,
    cancel: Cancellation,
    progress: Progress,
) -> None:
    """Take an image into the store, its blobs verified; the old store loses them then. Idempotent.

    It keeps its labels but containerd's own, and its blobs keep theirs.

    After failure there is no such name, and what was taken in is kept for the next attempt.

    Args:
        record: Of the old store; the store has no image of that name.
        contents: Where its blobs are.
        backing: The store.
        images: Its images.
        platform: The platform that must not be there in part only.
        cancel: Stops the work between two chunks.
        progress: Told of every chunk.

    Raises:
        ContentMissingError: A blob of it is in neither store.
        MalformedDocumentError: A document is not valid.
        DigestMismatchError: A blob has other content than its name says.
        NoSpaceError: There is too little room.
        InterruptedOperationError: ``cancel`` was set.
    """
    planned = ImageGraph(contents, backing.limits, platform).plan(record.target)
    blobs = [
        BlobToLoad(
            blob.descriptor.digest,
            contents.path(blob.descriptor.digest),
            size=blob.descriptor.size,
            media_type=blob.descriptor.media_type,
            labels=contents.labels(blob.descriptor.digest),
            move=True,
        )
        for blob in planned
    ]
    labels = {key: text for key, text in record.labels.items() if not key.startswith(_OF_STORE)}
    images.load(record.name, record.target, blobs, labels=labels, cancel=cancel, progress=progress)
