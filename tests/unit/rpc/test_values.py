"""Every value is the same after a message of it was read."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cas._gen.cas.v1 import store_pb2, types_pb2, volumes_pb2
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import ChainID, DiffID, Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskOrigin, DiskRecord, DiskRequest
from cas.model.documents import Manifest, parse_config, parse_document
from cas.model.labels import MEDIA_TYPE
from cas.model.limits import Limits
from cas.model.records import BlobInfo, ImageRecord
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.rpc import (
    image_values,
    messages,
    store_values,
    values,
    volume_messages,
    volume_values,
)
from cas.store.account.usage_values import (
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
from cas.volumes.status import DiskStatus, ForeignEntry, VolumeState, VolumeStatus, VolumeUsage
from tests.support.images import layered_image

NOW = datetime(2026, 11, 22, 13, 14, 15, 161718, UTC)
DIGEST = Digest.of(b"1")
NAME = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#3")
ARM = Platform("linux", "arm", "v7")
MANIFEST = Descriptor("application/vnd.oci.image.manifest.v1+json", DIGEST, 12)
RECORD = ImageRecord("example.com/a:1", MANIFEST, {"a": "b"}, NOW, NOW + timedelta(seconds=1))
MADE_FROM = VolumeRecord(
    NAME, "example.com/a:1", DIGEST, DIGEST, ChainID.of(b"c"), str(NAME), "overlayfs", True, NOW
)
FINDING = Finding(
    Problem.BLOB_SIZE, 1, Severity.ERROR, "x", "m", "a", True, ("i", "j"), (str(NAME),)
)
PLANNED = PlannedObject("blob", str(DIGEST), Action.UNPIN, "why", 7)
KEEPER = Keeper("image", "example.com/a:1", "an image")

Convert = Callable[[Any], Any]


def _resolved() -> ResolvedImage:
    built = layered_image(2, name="example.com/a:1", seed="values")
    root = Descriptor(
        str(built.root["mediaType"]), Digest.parse(built.digest), int(built.root["size"])
    )
    record = ImageRecord("example.com/a:1", root, {}, NOW, NOW)
    document = parse_document(built.manifest, root, Limits())
    assert isinstance(document, Manifest)
    config = built.blobs[str(document.config.digest)]
    return ResolvedImage(
        record=record,
        root=root,
        manifest=root,
        manifest_document=document,
        config=parse_config(config, document.config, Limits()),
        config_raw=config,
        layers=(Layer(document.layers[0], DiffID.of(b"d"), ChainID.of(b"d")),),
    )


def _details(resolved: ResolvedImage | None) -> ImageDetails:
    record = RECORD if resolved is None else resolved.record
    return ImageDetails(
        record,
        (PlatformDetails(ARM, MANIFEST, 5, (DIGEST,)), PlatformDetails(None, MANIFEST, 0, ())),
        99,
        resolved,
        None if resolved else "nothing for it",
        unpacked=resolved is not None,
    )


SINGLE: list[tuple[Convert, Convert, object]] = [
    (messages.platform, values.platform, ARM),
    (messages.descriptor, values.descriptor, MANIFEST),
    (
        messages.descriptor,
        values.descriptor,
        Descriptor("t", DIGEST, 0, ARM, annotations={"a": "b"}),
    ),
    (messages.blob, values.blob, BlobInfo(DIGEST, 5, NOW, NOW, {MEDIA_TYPE: "t", "k": "v"})),
    (messages.ingested, values.ingested, Ingested(DIGEST, 5, Way.EXISTED, created=False)),
    (messages.ingested, values.ingested, Ingested(DIGEST, 0, Way.SEED, created=True)),
    (messages.image, values.image, RECORD),
    (messages.image_details, image_values.image_details, _details(None)),
    (messages.image_details, image_values.image_details, _details(_resolved())),
    (
        volume_messages.volume,
        volume_values.volume,
        VolumeStatus(NAME, VolumeState.ACTIVE, Path("/r/rootfs"), MADE_FROM),
    ),
    (
        volume_messages.volume,
        volume_values.volume,
        VolumeStatus(NAME, VolumeState.CORRUPT, Path("/r/rootfs"), None, "gone"),
    ),
    *(
        (
            volume_messages.volume,
            volume_values.volume,
            VolumeStatus(NAME, VolumeState.INACTIVE, Path("/r/v"), None, None, disk),
        )
        for disk in (
            DiskStatus(Path("/r/v"), False, DiskFormat.ISO, 5, 4, None, 3),
            DiskStatus(
                Path("/r/v"),
                True,
                DiskFormat.QCOW2,
                2**40,
                4,
                DiskRecord(NAME, None, DiskFormat.QCOW2, 7, True, NOW),
            ),
            DiskStatus(
                Path("/r/v"),
                False,
                DiskFormat.RAW,
                5,
                4,
                DiskRecord(
                    NAME, DiskOrigin("i:1", DIGEST, DIGEST), DiskFormat.RAW, None, False, NOW
                ),
            ),
        )
    ),
    (
        lambda value: volume_messages.disk_request(NAME, value),
        volume_values.disk_request,
        DiskRequest(None, 512),
    ),
    (
        lambda value: volume_messages.disk_request(NAME, value),
        volume_values.disk_request,
        DiskRequest("i:1", None, DiskFormat.VHDX, read_only=True, clear=True),
    ),
    (
        volume_messages.foreign_entry,
        volume_values.foreign_entry,
        ForeignEntry(Path("/r/v.raw"), "an old one"),
    ),
    (volume_messages.volume_usage, volume_values.volume_usage, VolumeUsage(1, 2, 3)),
    (messages.planned_object, store_values.planned_object, PLANNED),
    (messages.skipped_object, store_values.skipped_object, Skipped(PLANNED, "in use")),
    (messages.holder, store_values.holder, Holder("volume", str(NAME), 5, "stays")),
    (messages.usage_entry, store_values.usage_entry, UsageEntry("store", "content", 5, 0)),
    (messages.usage_entry, store_values.usage_entry, UsageEntry("store", "databases", 5)),
    (messages.volume_share, store_values.volume_share, VolumeShare(str(NAME), 1, 2)),
    (
        messages.volume_share,
        store_values.volume_share,
        VolumeShare(str(NAME), 1, 0, 0, "qcow2", 2**40, True),
    ),
    (messages.image_usage, store_values.image_usage, ImageUsage("a", 1, 2, 3)),
    (messages.file_system, store_values.file_system, FileSystemUsage(Path("/p"), 4, 3, 1, 2)),
    (messages.finding, store_values.finding, FINDING),
    (messages.repaired, store_values.repaired, Repaired(FINDING, done=True, message="moved")),
    (messages.scrub, store_values.scrub, ScrubState(complete=False, blobs=1, size=2, remaining=3)),
    (messages.keeper, store_values.keeper, KEEPER),
    (
        messages.explanation,
        store_values.explanation,
        Explanation("blob", str(DIGEST), (KEEPER, Keeper("blob", "x")), (KEEPER,)),
    ),
]


@pytest.mark.parametrize(
    ("write", "read", "value"), SINGLE, ids=[type(value).__name__ for _, _, value in SINGLE]
)
def test_value_read_from_its_message_is_equal(write: Convert, read: Convert, value: object) -> None:
    """Nothing of a value is lost, after a passage over the wire."""
    message = write(value)

    assert read(type(message).FromString(message.SerializeToString())) == value


def test_annotations_of_a_descriptor_arrive() -> None:
    """They take no part in comparison, so they are looked at on their own."""
    message = messages.descriptor(Descriptor("t", DIGEST, 0, annotations={"a": "b"}))

    assert values.descriptor(message).annotations == {"a": "b"}


@pytest.mark.parametrize("needed", [None, 0, 17])
def test_plan_read_from_its_messages_is_equal(needed: int | None) -> None:
    """A plan without a goal is told from one whose goal needs nothing."""
    plan = PrunePlan(NOW, (PLANNED,), needed, (Holder("image", "a", 1, "r"),))

    summary = messages.plan_summary(plan, "id")

    assert summary.plan_id == "id"
    assert store_values.prune_plan(map(messages.planned_object, plan.objects), summary) == plan


def test_result_of_a_prune_read_from_its_messages_is_equal() -> None:
    """Removed and skipped come apart from the sums."""
    result = PruneResult((PLANNED,), (Skipped(PLANNED, "used"),), 5, 6, 7)
    summary = messages.prune_summary(result, PrunePlan(NOW, (PLANNED,), 9))

    read = store_values.prune_result(
        map(messages.planned_object, result.removed),
        map(messages.skipped_object, result.skipped),
        summary,
    )

    assert read == result
    assert summary.size == result.size


def test_account_read_from_several_messages_is_whole() -> None:
    """Each list may come in several messages, with progress in between."""
    rows = [UsageEntry("store", "content", 1, 1), UsageEntry("store", "snapshots", 2, 1)]
    parts = [
        store_pb2.UsageResponse(progress=types_pb2.Progress(action="measure")),
        *(
            store_pb2.UsageResponse(
                entries=store_pb2.UsageEntries(entries=[messages.usage_entry(row)])
            )
            for row in rows
        ),
    ]

    assert store_values.store_usage(parts) == StoreUsage(tuple(rows), (), (), ())


@pytest.mark.parametrize(
    "message",
    [
        types_pb2.Descriptor(digest=str(DIGEST), size=1),
        types_pb2.Descriptor(digest=str(DIGEST), media_type="t", size=-1),
        types_pb2.Descriptor(digest="sha256:1", media_type="t"),
        types_pb2.Descriptor(
            digest=str(DIGEST), media_type="t", platform=types_pb2.Platform(os="linux")
        ),
    ],
)
def test_descriptor_with_a_wrong_field_is_refused(message: types_pb2.Descriptor) -> None:
    """What comes from a caller is judged as a caller's mistake."""
    with pytest.raises(InvalidNameError):
        values.descriptor(message)


def test_member_that_this_version_does_not_know_is_refused() -> None:
    """A newer service does not make the client stumble later."""
    with pytest.raises(InvalidNameError, match="different versions"):
        store_values.planned_object(types_pb2.PrunedObject(action="transmogrify"))
    with pytest.raises(InvalidNameError, match="unknown state"):
        volume_values.volume(volumes_pb2.Volume(name=str(NAME)))


def test_file_name_that_is_no_text_is_escaped() -> None:
    """A stray file in a directory of ours cannot break a list of findings."""
    finding = Finding(Problem.FOREIGN_FILE, 9, Severity.WARNING, "/v/\udcff", "m", "a", False)

    assert messages.finding(finding).object == "/v/\\xff"
