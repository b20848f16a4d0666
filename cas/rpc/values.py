"""From messages of ``cas.v1`` to our values; :mod:`cas.rpc.messages` goes the other way.

Pure and strict: what a message says is parsed as if a person had typed it. Values that take more
of the library than a list of blobs needs are read in :mod:`cas.rpc.image_values` and
:mod:`cas.rpc.store_values`.
"""

__all__ = [
    "blob",
    "descriptor",
    "image",
    "ingested",
    "instant",
    "member",
    "platform",
    "uuid",
]

from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from cas._gen.cas.v1 import blobs_pb2, images_pb2, types_pb2
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.platforms import normalise
from cas.model.records import BlobInfo, ImageRecord
from cas.store.content.intake import Ingested, Way

_Member = TypeVar("_Member", bound=StrEnum)


def instant(stamp: Timestamp) -> datetime:
    """Read a time, aware UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def uuid(text: str) -> UUID | None:
    """Read a UUID; None if the text is empty.

    Raises:
        InvalidNameError: It is none.
    """
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidNameError(f"{text[:100]!r} is not a UUID", value=text[:100]) from error


def platform(message: types_pb2.Platform) -> Platform:
    """Read a platform, in any spelling.

    Raises:
        InvalidNameError: System or architecture is missing.
    """
    if not message.os or not message.architecture:
        raise InvalidNameError(
            f"platform with os {message.os!r} and architecture {message.architecture!r} lacks one "
            "of the two",
            value=f"{message.os}/{message.architecture}",
        )
    return normalise(message.os, message.architecture, message.variant)


def descriptor(message: types_pb2.Descriptor) -> Descriptor:
    """Read a descriptor.

    Raises:
        InvalidNameError: Its digest is no sha256, it has no media type, or its size is negative.
    """
    digest = Digest.parse(message.digest)
    if not message.media_type or message.size < 0:
        raise InvalidNameError(
            f"descriptor of {digest} has media type {message.media_type!r} and size "
            f"{message.size}; a media type and a size of 0 or more bytes are needed",
            digest=digest,
            size=message.size,
        )
    return Descriptor(
        media_type=message.media_type,
        digest=digest,
        size=message.size,
        platform=platform(message.platform) if message.HasField("platform") else None,
        annotations=dict(message.annotations),
    )


def blob(message: blobs_pb2.Blob) -> BlobInfo:
    """Read a blob's record."""
    return BlobInfo(
        digest=Digest.parse(message.digest),
        size=message.size,
        created=instant(message.created),
        updated=instant(message.updated),
        labels=dict(message.labels),
    )


def ingested(message: blobs_pb2.IngestedBlob) -> Ingested:
    """Read what an ingest gave."""
    return Ingested(
        digest=Digest.parse(message.digest),
        size=message.size,
        way=member(Way, message.way),
        created=message.created,
    )


def image(message: images_pb2.Image) -> ImageRecord:
    """Read an image's record."""
    return ImageRecord(
        name=message.name,
        target=descriptor(message.target),
        labels=dict(message.labels),
        created=instant(message.created),
        updated=instant(message.updated),
    )


def member(kind: type[_Member], name: str) -> _Member:
    """Read a word of a fixed list.

    Raises:
        InvalidNameError: It is none of them.
    """
    try:
        return kind(name)
    except ValueError:
        raise InvalidNameError(
            f"{name[:100]!r} is no {kind.__name__.lower()}; service and client are of different "
            "versions",
            value=name[:100],
        ) from None
