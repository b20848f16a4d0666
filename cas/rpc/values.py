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
    "volume",
    "volume_record",
    "volume_usage",
]

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from cas._gen.cas.v1 import blobs_pb2, images_pb2, types_pb2, volumes_pb2
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import ChainID, Digest
from cas.model.platforms import normalise
from cas.model.records import BlobInfo, ImageRecord
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.content.intake import Ingested, Way
from cas.volumes.status import VolumeState, VolumeStatus, VolumeUsage

_VOLUME_STATES = {
    volumes_pb2.VOLUME_STATE_ACTIVE: VolumeState.ACTIVE,
    volumes_pb2.VOLUME_STATE_INACTIVE: VolumeState.INACTIVE,
    volumes_pb2.VOLUME_STATE_CORRUPT: VolumeState.CORRUPT,
}

_Member = TypeVar("_Member", bound=StrEnum)


def instant(stamp: Timestamp) -> datetime:
    """Read a time, aware UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


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


def volume(message: volumes_pb2.Volume) -> VolumeStatus:
    """Read a volume as it was found."""
    name = VolumeName.parse(message.name)
    if message.state not in _VOLUME_STATES:
        raise InvalidNameError(
            f"volume {name} has the unknown state {message.state}", value=message.state
        )
    return VolumeStatus(
        name=name,
        state=_VOLUME_STATES[message.state],
        rootfs=Path(message.rootfs),
        record=volume_record(message.record, name) if message.HasField("record") else None,
        problem=message.problem or None,
    )


def volume_record(message: volumes_pb2.VolumeRecord, name: VolumeName) -> VolumeRecord:
    """Read what a volume was made from."""
    return VolumeRecord(
        name=name,
        image=message.image,
        root_digest=Digest.parse(message.root_digest),
        manifest_digest=Digest.parse(message.manifest_digest),
        chain_id=ChainID.parse(message.chain_id) if message.chain_id else None,
        snapshot_key=message.snapshot_key,
        snapshotter=message.snapshotter,
        read_only=message.read_only,
        created=instant(message.created),
    )


def volume_usage(message: volumes_pb2.VolumeUsageResponse) -> VolumeUsage:
    """Read what a volume takes."""
    return VolumeUsage(
        own_bytes=message.own_bytes, shared_bytes=message.shared_bytes, inodes=message.inodes
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
