"""Bytes of stored blobs, whole and verified, or in part."""

__all__ = ["BlobReading"]

import hashlib
from collections.abc import Generator
from contextlib import closing

from cas.errors import CorruptBlobError, UsageError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.progress import Progress
from cas.model.records import BlobInfo
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles

_ACTION = "read"


class BlobReading:
    """Reads blobs of one store, from their files where these are within reach.

    Args:
        backing: The store.
        files: Its blobs directory.
    """

    def __init__(self, backing: Backing, files: BlobFiles) -> None:
        self._backing = backing
        self._files = files

    def read(
        self, digest: Digest, *, offset: int = 0, size: int = 0
    ) -> Generator[bytes, None, None]:
        """Stream a blob's bytes; the whole of it is verified as it passes, a part cannot be.

        Args:
            digest: The blob.
            offset: Where to begin, bytes.
            size: How much at most; 0 for all that follows.

        Yields:
            Chunks of at most 1 MiB. Those of a whole blob are proven right only when the iterator
            ends by itself.

        Raises:
            BlobNotFoundError: There is none.
            CorruptBlobError: The bytes are gone, or, at the end, were not those of the digest.
            UsageError: The range does not begin within the blob.
        """
        info = self._backing.content.info(digest)
        if not 0 <= offset <= info.size or size < 0:
            raise UsageError(
                f"{size} bytes from {offset} are no part of blob {digest}, which has {info.size}",
                digest=digest,
                offset=offset,
                size=size,
            )
        if offset or size:
            return self._part(digest, offset, min(size or info.size, info.size - offset))
        return self._verified(info)

    def verify(
        self, digest: Digest, *, cancel: Cancellation | None, progress: Progress
    ) -> BlobInfo:
        """Read a blob to its end and compare it with its digest; changes nothing.

        Args:
            digest: The blob.
            cancel: Stops between two chunks.
            progress: Told of every chunk.

        Returns:
            Its record: the bytes are those of the digest.

        Raises:
            BlobNotFoundError: There is none.
            CorruptBlobError: The bytes are gone, or not those of the digest.
            InterruptedOperationError: ``cancel`` was set.
        """
        cancel = cancel or Cancellation()
        info = self._backing.content.info(digest)
        item = str(digest)
        progress.start(_ACTION, item, info.size)
        try:
            with closing(self._verified(info)) as chunks:
                for chunk in chunks:
                    cancel.check()
                    progress.advance(_ACTION, item, len(chunk))
        finally:
            progress.finish(_ACTION, item)
        return info

    def _verified(self, info: BlobInfo) -> Generator[bytes, None, None]:
        running = hashlib.sha256()
        count = 0
        with closing(self._chunks(info.digest)) as chunks:
            for chunk in chunks:
                running.update(chunk)
                count += len(chunk)
                yield chunk
        actual = Digest(running.hexdigest())
        if actual != info.digest:
            raise CorruptBlobError(
                f"blob {info.digest} of {info.size} bytes holds {count} bytes of digest {actual}; "
                "run `cas check --fix`",
                digest=info.digest,
                actual=actual,
            )

    def _part(self, digest: Digest, offset: int, size: int) -> Generator[bytes, None, None]:
        left = size
        if left == 0:  # which would mean everything to containerd
            return
        with closing(self._chunks(digest, offset, size)) as chunks:
            for chunk in chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        raise CorruptBlobError(
            f"blob {digest} ends {left} bytes before it should; run `cas check --fix`",
            digest=digest,
        )

    def _chunks(
        self, digest: Digest, offset: int = 0, size: int = 0
    ) -> Generator[bytes, None, None]:
        yield from self._files.read(digest, offset) or self._backing.content.read(
            digest, offset=offset, size=size
        )
