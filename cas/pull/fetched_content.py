"""Blobs of the store that are fetched when they are first read: documents of an image."""

__all__ = ["FetchedContent"]

from collections.abc import Callable, Iterator

from cas.errors import ContentMissingError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.documents import children, parse_document
from cas.model.limits import Limits
from cas.model.media_types import is_index, is_manifest
from cas.store.ports import BlobReader


class FetchedContent:
    """A :class:`cas.store.ports.BlobReader` for what can be reached from one root.

    Not for several threads.

    Args:
        content: The store's.
        limits: What a document may be.
        root: The manifest or index to begin with.
        bring: Sees to it that a blob is in the store.
    """

    def __init__(
        self,
        content: BlobReader,
        limits: Limits,
        root: Descriptor,
        bring: Callable[[Descriptor], None],
    ) -> None:
        self._content = content
        self._limits = limits
        self._known = {root.digest: root}
        self._bring = bring

    def read_all(self, digest: Digest, *, limit: int) -> bytes:
        """Give a whole blob, fetching it first; what it refers to can be read from then on.

        Raises:
            ContentMissingError: Nothing that was read refers to it.
            CasError: As the fetching and the store do.
        """
        descriptor = self._known.get(digest)
        if descriptor is None:
            raise ContentMissingError(f"{digest} belongs to no document that was read")
        self._bring(descriptor)
        raw = self._content.read_all(digest, limit=limit)
        if is_manifest(descriptor.media_type) or is_index(descriptor.media_type):
            for child in children(parse_document(raw, descriptor, self._limits)):
                self._known.setdefault(child.descriptor.digest, child.descriptor)
        return raw

    def read(self, digest: Digest, *, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        """Stream what is in the store already."""
        return self._content.read(digest, offset=offset, size=size)
