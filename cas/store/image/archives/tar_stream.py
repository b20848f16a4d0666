"""A tar that can be read only once: what it holds goes into the store as it comes.

Only the documents that say what the other members are stay in memory. When the stream has ended,
the archive answers like any other, from the store.
"""

__all__ = ["Receive", "StreamArchive"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cas.errors import LimitExceededError
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES, Limits
from cas.store.content.sources import BytesSource, Reader, Source, StreamSource
from cas.store.image.archives.archive import (
    DOCUMENT_NAMES,
    AbsentSource,
    ArchiveFile,
    SourceFile,
    claimed_digest,
    read_small,
)
from cas.store.image.archives.tar_file import follow_links
from cas.store.image.archives.tar_reader import MemberKind, TarMember, TarReader
from cas.store.ports import BlobReader

Receive = Callable[[Source, Digest | None, int], Digest]
"""Puts a member into the store: its content, the digest its name claims, its size."""

_DRAIN_BYTES = 4 * 1024 * 1024
"""A writer that still pads its tar must not be killed by our closing the pipe."""


class StreamArchive:
    """The members of a tar that has been read.

    Args:
        stream: The tar, uncompressed.
        origin: What messages call it.
        limits: What it may be.
        receive: Called for each regular member that is no document.
        content: Where the members are afterwards.

    Raises:
        MalformedArchiveError: It is no tar, or truncated.
        LimitExceededError: It has too many members or too large a document.
    """

    def __init__(
        self,
        stream: Reader,
        origin: str,
        limits: Limits,
        *,
        receive: Receive,
        content: BlobReader,
    ) -> None:
        self.origin = origin
        self._content = content
        self._limits = limits
        self._documents: dict[str, bytes] = {}
        self._stored: dict[str, tuple[Digest, int]] = {}
        self._links: dict[str, str] = {}
        tar = TarReader(stream, origin, limits)
        for member in tar:
            self._take(member, tar, receive)
        self._drain(stream)

    def _take(self, member: TarMember, tar: TarReader, receive: Receive) -> None:
        name = member.name
        for known in (self._documents, self._stored, self._links):
            known.pop(name, None)
        what = f"{name!r} of {self.origin}"
        if member.kind is MemberKind.LINK:
            self._links[name] = member.target
        elif member.kind is MemberKind.FILE and name in DOCUMENT_NAMES:
            self._documents[name] = read_small(tar, self._limits.document_bytes, what)
        elif member.kind is MemberKind.FILE:
            source = StreamSource(tar, what, member.size)
            self._stored[name] = (receive(source, claimed_digest(name), member.size), member.size)

    def _drain(self, stream: Reader) -> None:
        left = _DRAIN_BYTES
        while left > 0 and (chunk := stream.read(CHUNK_BYTES)):
            left -= len(chunk)

    def find(self, name: str) -> ArchiveFile | None:
        """Give the member; see :class:`cas.store.image.archives.archive.Archive`."""
        name = follow_links(name, self._links, self.origin)
        if name in self._documents:
            data = self._documents[name]
            return SourceFile(len(data), BytesSource(data, f"{name!r} of {self.origin}"))
        if name in self._stored:
            digest, size = self._stored[name]
            return _StoredFile(size, digest, self._content, f"{name!r} of {self.origin}")
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _StoredFile:
    size: int
    digest: Digest
    content: BlobReader
    name: str

    def source(self) -> Source:
        return AbsentSource(self.name)

    def read(self, limit: int) -> bytes:
        if self.size > limit:
            raise LimitExceededError(
                f"{self.name} has {self.size} bytes, more than the {limit} that a document may "
                "have",
                limit=limit,
                actual=self.size,
            )
        return self.content.read_all(self.digest, limit=limit)

    def head(self, size: int) -> bytes:
        if self.size == 0:
            return b""
        chunks = self.content.read(self.digest, offset=0, size=min(size, self.size))
        return b"".join(chunks)
