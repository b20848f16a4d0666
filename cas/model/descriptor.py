"""A reference to content by media type, digest and size."""

__all__ = ["Descriptor", "Platform"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cas.errors import MalformedDocumentError
from cas.model.digest import Digest
from cas.model.media_types import is_nondistributable_layer

_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Platform:
    """What a manifest runs on, in normalised form (see :mod:`cas.model.platforms`)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size of a blob that a document or an image record points to.

    Args:
        media_type: Never empty.
        digest: Of the blob's bytes.
        size: Bytes, 0 or more.
        platform: Only on the entries of an index.
        annotations: As in the document.
        urls: Where the blob can be had if neither registry nor archive has it.
        artifact_type: What a manifest is of; only on the entries of an index.

    Raises:
        MalformedDocumentError: Empty media type or negative size.

    Source: OCI image specification, "Content Descriptors".
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, compare=False)
    urls: tuple[str, ...] = field(default=(), compare=False)
    artifact_type: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.media_type or self.size < 0:
            raise MalformedDocumentError(
                f"descriptor of {self.digest} has media type {self.media_type!r} and size "
                f"{self.size}; a media type and a size of 0 or more bytes are needed",
                digest=self.digest,
                size=self.size,
            )

    @property
    def may_be_absent(self) -> bool:
        """Whether an image without the blob is as it should be: only its owner gives it out."""
        return bool(self.urls) and is_nondistributable_layer(self.media_type)
