"""What an image consists of: a walk from its root over documents to blobs, with labels for each.

The walk reads documents and asks what is there; it stores nothing. Invariants: a plan is complete
for every manifest in it, children stand before their parents, and what is left out on purpose is
named by a label on the document that refers to it. A document is believed only after its bytes
hashed to the digest that led to it, so a circle of references cannot exist; depth and number have
limits all the same.
"""

__all__ = ["Contents", "ImageGraph", "PlannedBlob"]

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cas.errors import ContentMissingError, LimitExceededError, MalformedDocumentError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import (
    Child,
    Document,
    Index,
    Manifest,
    children,
    parse_config,
    parse_document,
)
from cas.model.labels import DOWNLOADED, MEDIA_TYPE, NOT_FETCHED
from cas.model.limits import Limits
from cas.model.media_types import is_config, is_index, is_manifest
from cas.model.platforms import order_by_preference


class Contents(Protocol):
    """Where the blobs of an image can be found."""

    def has(self, descriptor: Descriptor, /) -> bool:
        """Whether the blob is there; raises ``SizeMismatchError`` if it has another size."""

    def read(self, descriptor: Descriptor, /) -> bytes:
        """Give a small blob that is there, verified against its digest."""


@dataclass(frozen=True, slots=True)
class PlannedBlob:
    """A blob that belongs to the image.

    Args:
        descriptor: What it is.
        labels: What the stored blob must carry, references to its children included.
        level: 0 for leaves; a document's is above those of its children.
    """

    descriptor: Descriptor
    labels: dict[str, str]
    level: int

    @property
    def is_document(self) -> bool:
        """Whether it refers to others."""
        return self.level > 0


@dataclass
class _Visited:
    """What is known of a digest: its blob if it is complete, else what it lacks."""

    blob: PlannedBlob | None
    missing: Descriptor | None = None
    manifests: int = 0


@dataclass
class _Walk:
    """State of one walk."""

    visited: dict[tuple[Digest, str], _Visited] = field(default_factory=dict)
    documents: int = 0
    order: list[PlannedBlob] = field(default_factory=list)


class ImageGraph:
    """Plans images from one place of contents.

    Args:
        contents: Where blobs can be found.
        limits: What documents may be.
        platform: The platform that must not be there in part only.
        demanded: Whether somebody asked for that platform, so that its manifest must be there.
    """

    def __init__(
        self, contents: Contents, limits: Limits, platform: Platform, *, demanded: bool = False
    ) -> None:
        self._contents = contents
        self._limits = limits
        self._platform = platform
        self._demanded = demanded

    def plan(self, root: Descriptor) -> list[PlannedBlob]:
        """List the blobs of an image, children before parents, each once.

        Entries of an index whose manifest or a part of it is absent are left out, as long as at
        least one manifest is complete and the one for the platform is not there in part. Absent
        layers that only their owner gives out are left out as well.

        Args:
            root: The manifest or index.

        Raises:
            ContentMissingError: The root, or too much below it, is absent.
            MalformedDocumentError: A document is not valid, or an index names nothing.
            DigestMismatchError: A document is there with other bytes.
            SizeMismatchError: A blob is there with another size.
            LimitExceededError: A document is larger, deeper or names more than allowed.
        """
        walk = _Walk()
        result = self._visit(root, walk, depth=0)
        if is_index(root.media_type) and self._contents.has(root):
            self._check_platform(root, walk)
        if result.blob is None:
            raise self._missing(root, result.missing or root)
        return sorted(walk.order, key=lambda blob: blob.level)

    def _visit(self, descriptor: Descriptor, walk: _Walk, depth: int) -> _Visited:
        # The type belongs to the key: what is a leaf in one place may be a manifest in another.
        key = (descriptor.digest, descriptor.media_type)
        if key not in walk.visited:
            self._check_number(walk)
            if is_manifest(descriptor.media_type) or is_index(descriptor.media_type) or depth == 0:
                result = self._visit_document(descriptor, walk, depth)
            else:
                result = self._visit_leaf(descriptor)
            walk.visited[key] = result
            if result.blob is not None:
                walk.order.append(result.blob)
        return walk.visited[key]

    def _check_number(self, walk: _Walk) -> None:
        if len(walk.visited) >= self._limits.archive_members:
            raise LimitExceededError(
                f"the image has more than {self._limits.archive_members} blobs",
                limit=self._limits.archive_members,
            )

    def _visit_leaf(self, descriptor: Descriptor) -> _Visited:
        if not self._contents.has(descriptor):
            return _Visited(None, descriptor)
        if is_config(descriptor.media_type):
            parse_config(self._contents.read(descriptor), descriptor, self._limits)
        return _Visited(PlannedBlob(descriptor, {MEDIA_TYPE: descriptor.media_type}, 0))

    def _visit_document(self, descriptor: Descriptor, walk: _Walk, depth: int) -> _Visited:
        if depth > self._limits.index_depth:
            raise LimitExceededError(
                f"indexes are nested more than {self._limits.index_depth} deep at "
                f"{descriptor.digest}",
                limit=self._limits.index_depth,
            )
        walk.documents += 1
        if walk.documents > self._limits.descriptors:
            raise LimitExceededError(
                f"the image has more than {self._limits.descriptors} manifests and indexes",
                limit=self._limits.descriptors,
            )
        if not self._contents.has(descriptor):
            return _Visited(None, descriptor)
        document = self._document(descriptor)
        if isinstance(document, Manifest):
            return self._visit_manifest(descriptor, document, walk, depth)
        return self._visit_index(descriptor, document, walk, depth)

    def _visit_manifest(
        self, descriptor: Descriptor, manifest: Manifest, walk: _Walk, depth: int
    ) -> _Visited:
        listed: list[Child] = []
        labels = {MEDIA_TYPE: descriptor.media_type, DOWNLOADED: "true"}
        for number, child in enumerate(children(manifest)):
            # Nothing of an incomplete manifest may come in, so look before anything is planned.
            if self._contents.has(child.descriptor):
                listed.append(child)
                labels[child.label] = str(child.descriptor.digest)
            elif child.descriptor.may_be_absent:
                labels |= _hole(child, number)
            else:
                return _Visited(None, child.descriptor)
        for child in listed:
            if is_manifest(child.descriptor.media_type) or is_index(child.descriptor.media_type):
                raise MalformedDocumentError(
                    f"manifest {descriptor.digest} names {child.descriptor.digest} of type "
                    f"{child.descriptor.media_type!r} as config or layer",
                    digest=descriptor.digest,
                )
            self._visit(child.descriptor, walk, depth + 1)
        return _Visited(PlannedBlob(descriptor, labels, level=1), manifests=1)

    def _visit_index(
        self, descriptor: Descriptor, index: Index, walk: _Walk, depth: int
    ) -> _Visited:
        labels = {MEDIA_TYPE: descriptor.media_type}
        level, manifests = 1, 0
        first_missing: Descriptor | None = None
        for number, child in enumerate(children(index)):
            result = self._visit(child.descriptor, walk, depth + 1)
            labels |= _edge(child, number, result)
            if result.blob is None:
                first_missing = first_missing or result.missing
            else:
                manifests += result.manifests
                level = max(level, result.blob.level + 1)
        if manifests == 0:
            if first_missing is None:
                raise MalformedDocumentError(
                    f"index {descriptor.digest} names no image", digest=descriptor.digest
                )
            return _Visited(None, first_missing)
        return _Visited(PlannedBlob(descriptor, labels, level), manifests=manifests)

    def _document(self, descriptor: Descriptor) -> Document:
        if descriptor.size > self._limits.document_bytes:
            raise LimitExceededError(
                f"{descriptor.digest} ({descriptor.media_type}) has {descriptor.size} bytes, more "
                f"than the {self._limits.document_bytes} that a document may have",
                limit=self._limits.document_bytes,
                actual=descriptor.size,
            )
        return parse_document(self._contents.read(descriptor), descriptor, self._limits)

    def _check_platform(self, root: Descriptor, walk: _Walk) -> None:
        """Refuse an image whose manifest for the platform is there without its content."""
        for entry in order_by_preference(self._entries(root), self._platform):
            if entry.platform is None:
                continue
            result = walk.visited[entry.digest, entry.media_type]
            if result.missing is not None and (result.missing != entry or self._demanded):
                raise self._missing(root, result.missing)
            return

    def _entries(self, root: Descriptor) -> Iterator[Descriptor]:
        document = self._document(root)
        if isinstance(document, Manifest):
            return
        for entry in document.manifests:
            if is_manifest(entry.media_type):
                yield entry
            elif is_index(entry.media_type) and self._contents.has(entry):
                yield from self._entries(entry)

    def _missing(self, root: Descriptor, missing: Descriptor) -> ContentMissingError:
        role = "" if missing == root else f" that image {root.digest} refers to"
        return ContentMissingError(
            f"{missing.digest} ({missing.media_type}, {missing.size} bytes){role} is neither in "
            "the input nor in the store; get a complete image",
            digest=missing.digest,
            image=root.digest,
        )


def _edge(child: Child, number: int, result: _Visited) -> dict[str, str]:
    if result.blob is None:
        return _hole(child, number)
    return {child.label: str(child.descriptor.digest)}


def _hole(child: Child, number: int) -> dict[str, str]:
    return {f"{NOT_FETCHED}.{number}": str(child.descriptor.digest)}
