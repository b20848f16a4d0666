"""Between containerd's messages and our values."""

__all__ = [
    "blob_info",
    "checked_labels",
    "descriptor_message",
    "descriptor_value",
    "instant",
    "label_changes",
    "mount_messages",
    "mount_values",
    "quoted",
]

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from cas._gen.containerd.services.content.v1 import content_pb2
from cas._gen.containerd.types import descriptor_pb2, mount_pb2
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import MAX_LABEL_BYTES
from cas.model.records import BlobInfo, Mount

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(stamp: Timestamp) -> datetime:
    """Give the aware UTC time."""
    # Twice as fast as protobuf's own conversion, which lists of blobs feel.
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def quoted(text: str) -> str:
    """Quote a value for a filter, so that commas and quotes in it stay part of it."""
    return json.dumps(text, ensure_ascii=False)


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Give the labels as containerd will take them.

    Raises:
        InvalidNameError: A label is longer than containerd's limit; refused here, because
            containerd would refuse only after the content was sent.
    """
    for key, value in labels.items():
        size = len(key.encode()) + len(value.encode())
        if size > MAX_LABEL_BYTES:
            raise InvalidNameError(
                f"label {key[:100]!r} has {size} bytes with its value, at most {MAX_LABEL_BYTES} "
                "are possible",
                label=key[:100],
                actual=size,
            )
    return dict(labels)


def label_changes(changes: Mapping[str, str | None]) -> tuple[dict[str, str], FieldMask]:
    """Give labels and field mask of an update that leaves all other labels alone.

    containerd removes a label that is set to the empty string.
    """
    labels = checked_labels({key: value or "" for key, value in changes.items()})
    return labels, FieldMask(paths=[f"labels.{key}" for key in labels])


def blob_info(info: content_pb2.Info) -> BlobInfo:
    """Read a blob's record.

    Raises:
        InvalidNameError: Its digest is no sha256.
    """
    created = instant(info.created_at)
    return BlobInfo(
        digest=Digest.parse(info.digest),
        size=info.size,
        created=created,
        # containerd 1.6 leaves the second time out of lists, or says the year 1 there.
        updated=max(created, instant(info.updated_at)),
        labels=dict(info.labels),
    )


def descriptor_message(
    descriptor: Descriptor, *, media_type: str | None = None
) -> descriptor_pb2.Descriptor:
    """Write a descriptor, with another media type if one is given."""
    return descriptor_pb2.Descriptor(
        media_type=media_type or descriptor.media_type,
        digest=str(descriptor.digest),
        size=descriptor.size,
        annotations=dict(descriptor.annotations),
    )


def descriptor_value(message: descriptor_pb2.Descriptor) -> Descriptor:
    """Read a descriptor.

    Raises:
        InvalidNameError: Its digest is no sha256.
        MalformedDocumentError: Its media type or size is impossible.
    """
    return Descriptor(
        media_type=message.media_type,
        digest=Digest.parse(message.digest),
        size=message.size,
        annotations=dict(message.annotations),
    )


def mount_messages(mounts: Sequence[Mount]) -> list[mount_pb2.Mount]:
    """Write mounts."""
    return [
        mount_pb2.Mount(type=mount.type, source=mount.source, options=list(mount.options))
        for mount in mounts
    ]


def mount_values(messages: Iterable[mount_pb2.Mount]) -> list[Mount]:
    """Read mounts."""
    return [
        Mount(type=message.type, source=message.source, options=tuple(message.options))
        for message in messages
    ]
