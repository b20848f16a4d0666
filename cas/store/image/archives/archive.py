"""What every kind of archive offers: files by name."""

__all__ = [
    "DOCUMENT_NAMES",
    "INDEX",
    "LAYOUT",
    "MANIFEST",
    "AbsentSource",
    "Archive",
    "ArchiveFile",
    "SourceFile",
    "blob_name",
    "claimed_digest",
    "clean_name",
    "read_exactly",
    "read_small",
]

import posixpath
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from cas.errors import ContentMissingError, LimitExceededError
from cas.model.digest import Digest
from cas.store.content.sources import Reader, Source

LAYOUT = "oci-layout"
INDEX = "index.json"
MANIFEST = "manifest.json"
DOCUMENT_NAMES = frozenset({LAYOUT, INDEX, MANIFEST})
"""Files that say what the others are."""

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})", re.ASCII)


class ArchiveFile(Protocol):
    """A regular file of an archive."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def digest(self) -> Digest | None:
        """Of its content, if that is in the store already."""

    def source(self) -> Source:
        """The content, to be ingested; not to be opened where ``digest`` is known."""

    def read(self, limit: int) -> bytes:
        """The content, or ``LimitExceededError`` above ``limit`` bytes."""

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer if there are not so many."""


class Archive(AbstractContextManager["Archive"], Protocol):
    """An open archive; leaving the context closes it, which may happen twice.

    Attributes:
        origin: What messages call it.
    """

    origin: str

    def find(self, name: str) -> ArchiveFile | None:
        """Give the file of this clean name, following links inside the archive.

        Raises:
            MalformedArchiveError: A link leads nowhere, in a circle or out of the archive.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of an archive that can be read at will."""

    size: int
    content: Source

    @property
    def digest(self) -> Digest | None:
        """Unknown until it is read."""
        return None

    def source(self) -> Source:
        """The content."""
        return self.content

    def read(self, limit: int) -> bytes:
        """The content, at most ``limit`` bytes."""
        with self.content.open() as reader:
            return read_small(reader, limit, self.content.name)

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes."""
        with self.content.open() as reader:
            return read_exactly(reader, size)


class AbsentSource:
    """A source for content that must be in the store already.

    Args:
        name: What messages call it.
        advice: What to do when it is not.
    """

    path = None
    size_hint = None
    repeatable = False

    def __init__(self, name: str, advice: str = "get the archive again") -> None:
        self.name = name
        self._advice = advice

    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Reader]:  # noqa: ARG002 -- the protocol's
        """Fail.

        Raises:
            ContentMissingError: Always.
        """
        raise ContentMissingError(f"{self.name} is not in the store; {self._advice}")
        yield  # a generator, as contextmanager needs it


def clean_name(name: str) -> str:
    """Give a member's name without ``.``, ``..``, doubled or leading slashes."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def blob_name(digest: Digest) -> str:
    """Where an OCI layout keeps a blob."""
    return f"blobs/sha256/{digest.hex}"


def claimed_digest(name: str) -> Digest | None:
    """Give the digest that a name of the form ``blobs/sha256/<hex>`` claims."""
    match = _BLOB.fullmatch(name)
    return None if match is None else Digest(match[1])


def read_exactly(reader: Reader, size: int) -> bytes:
    """Read ``size`` bytes, fewer only at the end."""
    parts = []
    while size > 0 and (chunk := reader.read(size)):
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)


def read_small(reader: Reader, limit: int, what: str) -> bytes:
    """Read to the end.

    Raises:
        LimitExceededError: There are more than ``limit`` bytes; no more than one beyond was read.
    """
    data = read_exactly(reader, limit + 1)
    if len(data) > limit:
        raise LimitExceededError(
            f"{what} has more than the {limit} bytes that a document may have", limit=limit
        )
    return data
