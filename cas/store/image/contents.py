"""Where the blobs of an image are looked for: in the store, in an archive, or made on the way."""

__all__ = ["ImportContents", "StoreContents"]

from cas.errors import BlobNotFoundError, DigestMismatchError, SizeMismatchError
from cas.model.cancellation import check_operation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.store.backing import Backing
from cas.store.content.sources import BytesSource, Source
from cas.store.image.archives.archive import (
    AbsentSource,
    Archive,
    ArchiveFile,
    SourceFile,
    blob_name,
)
from cas.store.image.resolution import read_document
from cas.store.leasing import Lease


class StoreContents:
    """Blobs that are in the store.

    Args:
        backing: The store.
        lease: Pins each blob before it is believed to be there; None only looks.
    """

    def __init__(self, backing: Backing, lease: Lease | None = None) -> None:
        self._backing = backing
        self._lease = lease
        self._sizes: dict[Digest, int | None] = {}

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there.

        Raises:
            SizeMismatchError: It is, with another size than the descriptor says.
        """
        size = self.size(descriptor.digest)
        if size is not None and size != descriptor.size:
            raise SizeMismatchError(
                f"blob {descriptor.digest} has {size} bytes, expected {descriptor.size}",
                digest=descriptor.digest,
                expected=descriptor.size,
                actual=size,
            )
        return size is not None

    def size(self, digest: Digest) -> int | None:
        """Bytes of the blob; None if it is not there. What was seen once is not asked again."""
        if digest not in self._sizes:
            check_operation()
            if self._lease is not None:
                self._lease.pin_blob(digest)
            try:
                self._sizes[digest] = self._backing.content.info(digest).size
            except BlobNotFoundError:
                self._sizes[digest] = None
        return self._sizes[digest]

    def read(self, descriptor: Descriptor) -> bytes:
        """Give a small blob.

        Raises:
            ContentMissingError: It is not there.
            CorruptBlobError: The store has other bytes under this digest.
            LimitExceededError: It is larger than a document may be.
        """
        return read_document(self._backing.content, descriptor, self._backing.limits)


class ImportContents(StoreContents):
    """Blobs of an archive, and for those that it lacks the store.

    Args:
        backing: The store.
        lease: Of the import.
        archive: Its OCI blobs are found by name; None looks into the store alone.
    """

    def __init__(self, backing: Backing, lease: Lease, archive: Archive | None = None) -> None:
        super().__init__(backing, lease)
        self._archive = archive
        self._added: dict[Digest, ArchiveFile] = {}

    def add_document(self, raw: bytes) -> Digest:
        """Make known a document that was made on the way; returns its digest."""
        digest = Digest.of(raw)
        self._added[digest] = SourceFile(len(raw), BytesSource(raw, str(digest)))
        return digest

    def size(self, digest: Digest) -> int | None:
        """Bytes of the blob; None if it is nowhere."""
        file = self._file(digest)
        return super().size(digest) if file is None else file.size

    def read(self, descriptor: Descriptor) -> bytes:
        """Give a small blob.

        Raises:
            DigestMismatchError: The archive has other bytes under this digest.
            LimitExceededError: It is larger than a document may be.
            ContentMissingError: It is nowhere.
            CorruptBlobError: The store has other bytes under this digest.
        """
        file = self._file(descriptor.digest)
        if file is None:
            return super().read(descriptor)
        raw = file.read(self._backing.limits.document_bytes)
        actual = Digest.of(raw)
        if actual != descriptor.digest:
            raise DigestMismatchError(
                f"the archive has under the name of blob {descriptor.digest} content with digest "
                f"{actual}; get it again",
                expected=descriptor.digest,
                actual=actual,
            )
        return raw

    def source(self, descriptor: Descriptor) -> Source:
        """Give what to ingest the blob from; one that only says so if the store must have it."""
        file = self._file(descriptor.digest)
        return AbsentSource(f"blob {descriptor.digest}") if file is None else file.source()

    def _file(self, digest: Digest) -> ArchiveFile | None:
        if digest in self._added:
            return self._added[digest]
        return None if self._archive is None else self._archive.find(blob_name(digest))
