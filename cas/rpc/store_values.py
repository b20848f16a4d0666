"""Plans, accounts, findings and explanations, read from messages; see :mod:`cas.rpc.values`.

What comes in several messages (a plan, an account) is made from what was collected.
"""

__all__ = [
    "explanation",
    "file_system",
    "finding",
    "holder",
    "image_usage",
    "keeper",
    "planned_object",
    "prune_plan",
    "prune_result",
    "repaired",
    "scrub",
    "skipped_object",
    "store_usage",
    "usage_entry",
    "volume_share",
]

from collections.abc import Iterable
from pathlib import Path

from cas._gen.cas.v1 import store_pb2, types_pb2
from cas.rpc.values import instant, member
from cas.store.account.usage_values import (
    CONTAINER,
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
from cas.store.prune.execution import Skipped
from cas.store.prune.plan import Action, Holder, PlannedObject, PrunePlan
from cas.store.prune.prune import PruneResult


def planned_object(message: types_pb2.PrunedObject) -> PlannedObject:
    """Read an object that a prune removes or removed."""
    return PlannedObject(
        kind=message.kind,
        name=message.name,
        action=member(Action, message.action),
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
        name=message.name,
        own_bytes=message.own_bytes,
        shared_bytes=message.shared_bytes,
        snapshot_bytes=message.snapshot_bytes,
        format=message.format or CONTAINER,
        virtual_size=message.virtual_size,
        clear=message.clear,
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
        problem=member(Problem, message.problem),
        invariant=message.invariant,
        severity=member(Severity, message.severity),
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
