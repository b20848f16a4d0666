"""From messages of ``cas.v1`` to our values; :mod:`cas.rpc.messages` goes the other way.

Pure and strict: what a message says is parsed as if a person had typed it. Values that come in
several messages (a plan, an account) are made from what was collected.
"""

__all__ = [
    "blob",
    "descriptor",
    "explanation",
    "file_system",
    "finding",
    "holder",
    "image",
    "image_details",
    "image_usage",
    "ingested",
    "instant",
    "keeper",
    "layer",
    "planned_object",
    "platform",
    "platform_details",
    "prune_plan",
    "prune_result",
    "repaired",
    "resolved_image",
    "scrub",
    "skipped_object",
    "store_usage",
    "usage_entry",
    "volume",
    "volume_record",
    "volume_share",
    "volume_usage",
]

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import ChainID, DiffID, Digest
from cas.model.documents import Manifest, parse_config, parse_document
from cas.model.limits import Limits
from cas.model.platforms import normalise
from cas.model.records import BlobInfo, ImageRecord
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.account.usage import (
    FileSystemUsage,
    ImageUsage,
    StoreUsage,
    UsageEntry,
    VolumeShare,
)
from cas.store.account.why import Explanation, Keeper
from cas.store.check.data import ScrubState
from cas.store.check.findings import Finding, Problem, Severity
from cas.store.check.repair import Repaired
from cas.store.content.ingest import Ingested, Way
from cas.store.image.details import ImageDetails, PlatformDetails
from cas.store.image.resolution import Layer, ResolvedImage
from cas.store.prune.execution import Skipped
from cas.store.prune.plan import Action, Holder, PlannedObject, PrunePlan
from cas.store.prune.prune import PruneResult
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
        way=_member(Way, message.way),
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


def image_details(
    message: images_pb2.InspectImageResponse, limits: Limits | None = None
) -> ImageDetails:
    """Read everything about an image; ``limits`` bound its documents."""
    record = image(message.image)
    resolved = None
    if message.HasField("resolved"):
        resolved = resolved_image(message.resolved, record, limits or Limits())
    return ImageDetails(
        record=record,
        platforms=tuple(map(platform_details, message.platforms)),
        size=message.size,
        resolved=resolved,
        problem=message.problem or None,
        unpacked=message.unpacked,
    )


def platform_details(message: images_pb2.ImagePlatform) -> PlatformDetails:
    """Read one manifest of an image."""
    return PlatformDetails(
        platform=platform(message.platform) if message.HasField("platform") else None,
        manifest=descriptor(message.manifest),
        size=message.size,
        missing=tuple(map(Digest.parse, message.missing)),
    )


def resolved_image(
    message: images_pb2.ResolvedImage, record: ImageRecord, limits: Limits
) -> ResolvedImage:
    """Read an image for one platform; its documents are parsed from their bytes.

    Raises:
        MalformedDocumentError: A document is not valid.
        LimitExceededError: It is larger than allowed.
    """
    manifest = descriptor(message.manifest)
    document = parse_document(message.manifest_document, manifest, limits)
    if not isinstance(document, Manifest):
        raise InvalidNameError(
            f"{manifest.digest} is no manifest but {manifest.media_type}", digest=manifest.digest
        )
    return ResolvedImage(
        record=record,
        root=record.target,
        manifest=manifest,
        manifest_document=document,
        config=parse_config(message.config, document.config, limits),
        config_raw=message.config,
        layers=tuple(map(layer, message.layers)),
    )


def layer(message: images_pb2.ImageLayer) -> Layer:
    """Read a layer."""
    return Layer(
        descriptor=descriptor(message.descriptor),
        diff_id=DiffID.parse(message.diff_id),
        chain_id=ChainID.parse(message.chain_id),
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


def planned_object(message: types_pb2.PrunedObject) -> PlannedObject:
    """Read an object that a prune removes or removed."""
    return PlannedObject(
        kind=message.kind,
        name=message.name,
        action=_member(Action, message.action),
        reason=message.reason,
        size=message.size,
    )


def skipped_object(message: types_pb2.PrunedObject) -> Skipped:
    """Read an object that a prune left."""
    return Skipped(planned_object(message), message.kept)


def holder(message: types_pb2.Holder) -> Holder:
    """Read what keeps bytes that a missed goal would need."""
    return Holder(kind=message.kind, name=message.name, size=message.size, reason=message.reason)


def prune_plan(
    planned: Iterable[types_pb2.PrunedObject], summary: types_pb2.PruneResult
) -> PrunePlan:
    """Put a plan together. It names its objects only: the service alone can do it, by its id."""
    return PrunePlan(
        made=instant(summary.made),
        objects=tuple(map(planned_object, planned)),
        needed=summary.needed if summary.HasField("needed") else None,
        holders=tuple(map(holder, summary.holders)),
    )


def prune_result(
    removed: Iterable[types_pb2.PrunedObject],
    skipped: Iterable[types_pb2.PrunedObject],
    summary: types_pb2.PruneResult,
) -> PruneResult:
    """Put together what a run did."""
    return PruneResult(
        removed=tuple(map(planned_object, removed)),
        skipped=tuple(map(skipped_object, skipped)),
        free_before=summary.free_before,
        free_after=summary.free_after,
        missing=summary.missing,
    )


def store_usage(parts: Iterable[store_pb2.UsageResponse]) -> StoreUsage:
    """Put the account together; progress among the parts is passed over."""
    collected = list(parts)
    return StoreUsage(
        entries=tuple(usage_entry(row) for part in collected for row in part.entries.entries),
        volumes=tuple(volume_share(row) for part in collected for row in part.volumes.volumes),
        images=tuple(image_usage(row) for part in collected for row in part.images.images),
        file_systems=tuple(
            file_system(row) for part in collected for row in part.file_systems.file_systems
        ),
    )


def usage_entry(message: store_pb2.UsageEntry) -> UsageEntry:
    """Read one line of the account."""
    return UsageEntry(
        owner=message.owner,
        part=message.part,
        size=message.size,
        objects=message.objects if message.HasField("objects") else None,
    )


def volume_share(message: store_pb2.VolumeShare) -> VolumeShare:
    """Read a volume's part of the snapshots."""
    return VolumeShare(
        name=message.name, own_bytes=message.own_bytes, shared_bytes=message.shared_bytes
    )


def image_usage(message: store_pb2.ImageUsage) -> ImageUsage:
    """Read an image's part of the store."""
    return ImageUsage(
        name=message.name,
        content_bytes=message.content_bytes,
        snapshot_bytes=message.snapshot_bytes,
        unique_bytes=message.unique_bytes,
    )


def file_system(message: store_pb2.FileSystem) -> FileSystemUsage:
    """Read a file system."""
    return FileSystemUsage(
        path=Path(message.path),
        capacity=message.capacity,
        used=message.used,
        free=message.free,
        explained=message.explained,
    )


def finding(message: store_pb2.Finding) -> Finding:
    """Read what a check found."""
    return Finding(
        problem=_member(Problem, message.problem),
        invariant=message.invariant,
        severity=_member(Severity, message.severity),
        object=message.object,
        message=message.message,
        advice=message.advice,
        fixable=message.fixable,
        images=tuple(message.images),
        volumes=tuple(message.volumes),
    )


def repaired(message: store_pb2.Repaired) -> Repaired:
    """Read what became of a finding."""
    return Repaired(finding=finding(message.finding), done=message.done, message=message.message)


def scrub(message: store_pb2.Scrub) -> ScrubState:
    """Read how far reading came."""
    return ScrubState(
        complete=message.complete,
        blobs=message.blobs,
        size=message.size,
        remaining=message.remaining,
    )


def keeper(message: store_pb2.Keeper) -> Keeper:
    """Read one link of a chain of references."""
    return Keeper(kind=message.kind, name=message.name, reason=message.reason)


def explanation(message: store_pb2.Explanation) -> Explanation:
    """Read what keeps an object."""
    return Explanation(
        kind=message.kind,
        name=message.name,
        chain=tuple(map(keeper, message.chain)),
        roots=tuple(map(keeper, message.roots)),
    )


def _member(kind: type[_Member], name: str) -> _Member:
    try:
        return kind(name)
    except ValueError:
        raise InvalidNameError(
            f"{name[:100]!r} is no {kind.__name__.lower()}; service and client are of different "
            "versions",
            value=name[:100],
        ) from None
