"""The bytes of a disk image in the store: as the file of its blob, or unpacked.

A blob's file is used as it lies there, so that it can be shared or copied with its holes. What is
compressed, inside a tar, or out of reach is unpacked as a stream first, and verified as it passes.
"""

__all__ = ["BlobFile", "DiskSource", "ImageContent", "ImageFile", "Meter", "UnpackTarget"]

import os
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol, Self

from cas.errors import (
    BlobNotFoundError,
    ContentMissingError,
    CorruptBlobError,
    DiskNotFoundError,
)
from cas.fsops.translation import translated
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.disk.artifact import DiskArtifact
from cas.model.limits import CHUNK_BYTES
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.content.reading import BlobReading
from cas.store.content.sources import ChunkSource, Reader
from cas.store.image.archives.decompression import Decompressed, decompressor_for
from cas.store.image.archives.tar_reader import MemberKind, TarReader
from cas.store.layers.size import HEAD_BYTES, TAIL_BYTES, estimate_unpacked_bytes

_HEAD_BYTES = 512

Meter = Callable[[int], None]
"""Told how many more bytes are done; raises to stop the work."""


class ImageContent(Protocol):
    """What can be looked at as a disk image."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Give at most so many bytes from an offset, fewer only at the end."""


class ImageFile(ImageContent, Protocol):
    """An open file that is a disk image."""

    def fileno(self) -> int:
        """Its descriptor."""


class UnpackTarget(Protocol):
    """Takes what is unpacked."""

    def append(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish_appending(self) -> None:
        """Know that these were all."""


class BlobFile:
    """The open file of a blob; leaving its ``with`` block closes it.

    Args:
        descriptor: Is closed with it.
        digest: Of the blob.
    """

    def __init__(self, descriptor: int, digest: Digest) -> None:
        self._descriptor = descriptor
        self._digest = digest

    def fileno(self) -> int:
        """Its descriptor."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Its bytes."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Give at most so many bytes from an offset, fewer only at the end."""
        with translated("read", f"blob {self._digest}"):
            return os.pread(self._descriptor, size, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class DiskSource:
    """Reads disk images of one store.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._files = BlobFiles(backing)
        self._reading = BlobReading(backing, self._files)

    def open(self, artifact: DiskArtifact) -> BlobFile | None:
        """Open the image as it lies in the store; None if it has to be unpacked.

        Raises:
            ContentMissingError: Its blob is not in the store.
            CorruptBlobError: The blob's file has another size than its record says.
        """
        digest = artifact.layers[0].digest
        if artifact.path is not None or decompressor_for(self.head(artifact)) is not None:
            return None
        descriptor = self._files.open(digest)
        if descriptor is None:
            return None
        blob = BlobFile(descriptor, digest)
        if blob.size != self._size(digest):
            with blob:
                raise CorruptBlobError(
                    f"the file of blob {digest} has {blob.size} bytes, expected "
                    f"{self._size(digest)}; run `cas check --fix`",
                    digest=digest,
                )
        return blob

    def verify(self, artifact: DiskArtifact, meter: Meter) -> None:
        """Read the blob of an image that lies in the store as it is, and compare its digest.

        Raises:
            ContentMissingError: It is not in the store.
            CorruptBlobError: It is not what its digest says.
        """
        for _ in self._chunks(artifact.layers[0], meter):
            pass

    def head(self, artifact: DiskArtifact) -> bytes:
        """Give the first bytes of the first blob.

        Raises:
            ContentMissingError: It is not in the store.
        """
        blob = artifact.layers[0].digest
        return self._part(blob, 0, min(_HEAD_BYTES, self._size(blob)))

    def sizes(self, artifact: DiskArtifact) -> tuple[int, int]:
        """Give the bytes of the blobs of an image, and what they may unpack to.

        Raises:
            ContentMissingError: One is not in the store.
        """
        total = expected = 0
        for layer in artifact.layers:
            size = self._size(layer.digest)
            head = self._part(layer.digest, 0, min(HEAD_BYTES, size))
            tail = self._part(layer.digest, max(0, size - TAIL_BYTES), min(TAIL_BYTES, size))
            total += size
            expected = max(expected, estimate_unpacked_bytes(head, tail, size))
        return total, expected

    def _size(self, digest: Digest) -> int:
        try:
            return self._backing.content.info(digest).size
        except BlobNotFoundError as error:
            raise _missing(digest) from error

    def _part(self, digest: Digest, offset: int, size: int) -> bytes:
        return b"".join(self._reading.read(digest, offset=offset, size=size)) if size else b""

    def unpack(self, artifact: DiskArtifact, target: UnpackTarget, meter: Meter) -> Digest:
        """Write the image into an empty file.

        Args:
            artifact: Where it is.
            target: Where to write.
            meter: Told of every chunk that was read from the store.

        Returns:
            The blob that it was in.

        Raises:
            ContentMissingError: A blob is not in the store.
            DiskNotFoundError: No layer has a file of the path.
            MalformedArchiveError: What is compressed, or the tar, is damaged or cut off.
            LimitExceededError: It expands beyond the limit.
            CorruptBlobError: A stored blob is not what its digest says.
            NoSpaceError: No room.
        """
        for layer in artifact.layers:
            with closing(self._chunks(layer, meter)) as chunks:
                if self._unpack_layer(layer, artifact.path, chunks, target):
                    target.finish_appending()
                    return layer.digest
        raise DiskNotFoundError(
            f"no layer of the image has a file {artifact.path!r}, which its label names as the "
            "disk",
            path=artifact.path,
        )

    def _chunks(self, layer: Descriptor, meter: Meter) -> Generator[bytes, None, None]:
        try:
            with closing(self._reading.read(layer.digest)) as chunks:
                for chunk in chunks:
                    meter(len(chunk))
                    yield chunk
        except BlobNotFoundError as error:
            raise _missing(layer.digest) from error

    def _unpack_layer(
        self,
        layer: Descriptor,
        path: str | None,
        chunks: Generator[bytes, None, None],
        target: UnpackTarget,
    ) -> bool:
        name = f"blob {layer.digest}"
        first = next(chunks, b"")
        with ChunkSource(lambda: _joined(first, chunks), name).open() as stream:
            content = self._decompressed(first, stream, name)
            if path is None:
                _copy(content, target)
                found = True
            else:
                found = self._extract(content, path, name, target)
        # What is left is read as well: only then are the bytes proven right.
        for _ in chunks:
            pass
        return found

    def _decompressed(self, head: bytes, stream: Reader, name: str) -> Reader:
        make = decompressor_for(head)
        return stream if make is None else Decompressed(stream, make, name, self._backing.limits)

    def _extract(self, content: Reader, path: str, name: str, target: UnpackTarget) -> bool:
        tar = TarReader(content, name, self._backing.limits)
        for member in tar:
            if member.name == path and member.kind is MemberKind.FILE:
                _copy(tar, target)
                return True
        return False


def _joined(first: bytes, rest: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    if first:
        yield first
    yield from rest


def _copy(content: Reader, target: UnpackTarget) -> None:
    while chunk := content.read(CHUNK_BYTES):
        target.append(chunk)


def _missing(digest: Digest) -> ContentMissingError:
    return ContentMissingError(
        f"disk image {digest} is not in the store; import or pull it again", digest=digest
    )
