"""From our values to messages of ``cas.v1``; :mod:`cas.rpc.values` goes the other way.

Pure, total: every value has a message. What is no UTF-8, such as the name of a file that somebody
left in a directory of ours, is escaped, since a message cannot carry it.
"""

__all__ = [
    "blob",
    "blob_media_type",
    "descriptor",
    "event",
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
    "plan_summary",
    "planned_object",
    "platform",
    "platform_details",
    "progress",
    "prune_summary",
    "repaired",
    "resolved_image",
    "scrub",
    "skipped_object",
    "text",
    "usage_entry",
    "volume_share",
]

from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.events import Event
from cas.model.labels import MEDIA_TYPE
from cas.model.records import BlobInfo, ImageRecord

if TYPE_CHECKING:
    from cas.store.account.usage_values import FileSystemUsage, ImageUsage, UsageEntry, VolumeShare
    from cas.store.account.why import Explanation, Keeper
    from cas.store.check.data import ScrubState
    from cas.store.check.findings import Finding
    from cas.store.check.repair import Repaired
    from cas.store.content.ingest import Ingested
    from cas.store.image.details import ImageDetails, PlatformDetails
    from cas.store.image.resolution import Layer, ResolvedImage
    from cas.store.prune.execution import Skipped
    from cas.store.prune.plan import Holder, PlannedObject, PrunePlan
    from cas.store.prune.prune import PruneResult


def text(value: object) -> str:
    """Give the text of a value; what is no UTF-8 in the name of a file is escaped."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def instant(moment: datetime) -> Timestamp:
    """Write an aware time."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def progress(
    action: str,
    item: str,
    *,
    done: int = 0,
    total: int | None = None,
    unit: str = "B",
    finished: bool = False,
) -> types_pb2.Progress:
    """Write how far one item is."""
    return types_pb2.Progress(
        action=action,
        item=text(item),
        done=done,
        total=total or 0,
        unit=unit,
        finished=finished,
    )


def platform(value: Platform) -> types_pb2.Platform:
    """Write a platform."""
    return types_pb2.Platform(os=value.os, architecture=value.architecture, variant=value.variant)


def descriptor(value: Descriptor) -> types_pb2.Descriptor:
    """Write a descriptor."""
    return types_pb2.Descriptor(
        media_type=value.media_type,
        digest=str(value.digest),
        size=value.size,
        platform=None if value.platform is None else platform(value.platform),
        annotations=value.annotations,
    )


def blob(value: BlobInfo) -> blobs_pb2.Blob:
    """Write a blob's record."""
    return blobs_pb2.Blob(
        digest=str(value.digest),
        size=value.size,
        media_type=value.labels.get(MEDIA_TYPE, ""),
        labels=value.labels,
        created=instant(value.created),
        updated=instant(value.updated),
    )


def blob_media_type(digest: Digest, media_type: str) -> blobs_pb2.BlobMediaType:
    """Write a blob's media type."""
    return blobs_pb2.BlobMediaType(digest=str(digest), media_type=media_type)


def ingested(value: "Ingested") -> blobs_pb2.IngestedBlob:
    """Write what an ingest gave."""
    return blobs_pb2.IngestedBlob(
        digest=str(value.digest), size=value.size, way=value.way, created=value.created
    )


def image(value: ImageRecord) -> images_pb2.Image:
    """Write an image's record."""
    return images_pb2.Image(
        name=value.name,
        target=descriptor(value.target),
        labels=value.labels,
        created=instant(value.created),
        updated=instant(value.updated),
    )


def image_details(value: "ImageDetails") -> images_pb2.InspectImageResponse:
    """Write everything about an image."""
    return images_pb2.InspectImageResponse(
        image=image(value.record),
        platforms=map(platform_details, value.platforms),
        size=value.size,
        resolved=None if value.resolved is None else resolved_image(value.resolved),
        problem=text(value.problem or ""),
        unpacked=value.unpacked,
    )


def platform_details(value: "PlatformDetails") -> images_pb2.ImagePlatform:
    """Write one manifest of an image."""
    return images_pb2.ImagePlatform(
        platform=None if value.platform is None else platform(value.platform),
        manifest=descriptor(value.manifest),
        size=value.size,
        missing=map(str, value.missing),
        not_fetched=map(str, value.not_fetched),
    )


def resolved_image(value: "ResolvedImage") -> images_pb2.ResolvedImage:
    """Write an image for one platform, its documents as bytes."""
    return images_pb2.ResolvedImage(
        manifest=descriptor(value.manifest),
        config_descriptor=descriptor(value.config_descriptor),
        config=value.config_raw,
        layers=map(layer, value.layers),
        manifest_document=value.manifest_document.raw,
    )


def layer(value: "Layer") -> images_pb2.ImageLayer:
    """Write a layer."""
    return images_pb2.ImageLayer(
        descriptor=descriptor(value.descriptor),
        diff_id=str(value.diff_id),
        chain_id=str(value.chain_id),
    )


def planned_object(value: "PlannedObject") -> types_pb2.PrunedObject:
    """Write an object that a prune removes or removed."""
    return types_pb2.PrunedObject(
        kind=value.kind,
        name=text(value.name),
        action=value.action,
        reason=text(value.reason),
        size=value.size,
    )


def skipped_object(value: "Skipped") -> types_pb2.PrunedObject:
    """Write an object that a prune left."""
    message = planned_object(value.planned)
    message.kept = text(value.reason)
    return message


def holder(value: "Holder") -> types_pb2.Holder:
    """Write what keeps bytes that a missed goal would need."""
    return types_pb2.Holder(
        kind=value.kind, name=text(value.name), size=value.size, reason=text(value.reason)
    )


def plan_summary(value: "PrunePlan", plan_id: str) -> types_pb2.PruneResult:
    """Write a plan without its objects."""
    return types_pb2.PruneResult(
        size=value.size,
        missing=value.missing,
        holders=map(holder, value.holders),
        plan_id=plan_id,
        made=instant(value.made),
        needed=value.needed,
    )


def prune_summary(value: "PruneResult", plan: "PrunePlan") -> types_pb2.PruneResult:
    """Write what a run of a plan did, without its objects."""
    return types_pb2.PruneResult(
        size=value.size,
        missing=value.missing,
        holders=map(holder, plan.holders),
        free_before=value.free_before,
        free_after=value.free_after,
        made=instant(plan.made),
        needed=plan.needed,
    )


def usage_entry(value: "UsageEntry") -> store_pb2.UsageEntry:
    """Write one line of the account."""
    return store_pb2.UsageEntry(
        owner=value.owner, part=text(value.part), size=value.size, objects=value.objects
    )


def volume_share(value: "VolumeShare") -> store_pb2.VolumeShare:
    """Write a volume's part of the snapshots."""
    return store_pb2.VolumeShare(
        name=value.name,
        own_bytes=value.own_bytes,
        shared_bytes=value.shared_bytes,
        snapshot_bytes=value.snapshot_bytes,
        format=value.format,
        virtual_size=value.virtual_size,
        clear=value.clear,
    )


def image_usage(value: "ImageUsage") -> store_pb2.ImageUsage:
    """Write an image's part of the store."""
    return store_pb2.ImageUsage(
        name=value.name,
        content_bytes=value.content_bytes,
        snapshot_bytes=value.snapshot_bytes,
        unique_bytes=value.unique_bytes,
    )


def file_system(value: "FileSystemUsage") -> store_pb2.FileSystem:
    """Write a file system."""
    return store_pb2.FileSystem(
        path=text(value.path),
        capacity=value.capacity,
        used=value.used,
        free=value.free,
        explained=value.explained,
    )


def finding(value: "Finding") -> store_pb2.Finding:
    """Write what a check found."""
    return store_pb2.Finding(
        problem=value.problem,
        invariant=value.invariant,
        severity=value.severity,
        object=text(value.object),
        message=text(value.message),
        advice=text(value.advice),
        fixable=value.fixable,
        images=value.images,
        volumes=value.volumes,
    )


def repaired(value: "Repaired") -> store_pb2.Repaired:
    """Write what became of a finding."""
    return store_pb2.Repaired(
        finding=finding(value.finding), done=value.done, message=text(value.message)
    )


def scrub(value: "ScrubState") -> store_pb2.Scrub:
    """Write how far reading came."""
    return store_pb2.Scrub(
        complete=value.complete, blobs=value.blobs, size=value.size, remaining=value.remaining
    )


def keeper(value: "Keeper") -> store_pb2.Keeper:
    """Write one link of a chain of references."""
    return store_pb2.Keeper(kind=value.kind, name=text(value.name), reason=text(value.reason))


def explanation(value: "Explanation") -> store_pb2.Explanation:
    """Write what keeps an object."""
    return store_pb2.Explanation(
        kind=value.kind,
        name=text(value.name),
        chain=map(keeper, value.chain),
        roots=map(keeper, value.roots),
    )


def event(value: Event) -> store_pb2.Event:
    """Write what happened."""
    return store_pb2.Event(time=instant(value.time), kind=value.kind, object=text(value.object))
