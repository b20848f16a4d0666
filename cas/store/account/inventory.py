"""One look at everything in the store: records become a graph with roots.

One pass over volumes, images, blobs, snapshots, ingests and leases; blobs are streamed and no
call is made per blob or snapshot. What is read at different moments may disagree by what happened
in between, so nobody deletes on the word of an inventory alone: references are dropped (names,
pins, leases of the dead), each after a second look, and containerd's collector, which stops the
world, decides what that frees.
"""

__all__ = [
    "ABANDONED_AFTER",
    "Inventory",
    "LeaseUse",
    "OtherContent",
    "Pin",
    "abandoned_ingests",
    "take_inventory",
]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cas.errors import InvalidNameError, LeaseNotFoundError
from cas.model.cancellation import check_operation, while_wanted
from cas.model.labels import DURABLE, GC_EXPIRE, GC_ROOT, PIN_OWNER, PIN_REASON, STORE_ID
from cas.model.records import (
    BlobInfo,
    ImageRecord,
    IngestStatus,
    LeaseInfo,
    LeaseResource,
    SnapshotKind,
)
from cas.model.sizes import parse_instant
from cas.model.volume_record import VolumeRecord
from cas.store.account.files import BlobFileScan, allocated_size, scan_blob_files
from cas.store.account.graph import Graph, Kind, Reference, references, referrers
from cas.store.backing import Backing
from cas.store.filters import BlobFilters, changed
from cas.store.leasing import is_abandoned, is_resumable
from cas.store.ports import BlobCatalogue

OtherContent = Callable[[], Iterable[tuple[str, BlobCatalogue]]]
"""Gives name and content of every other namespace: a blob's file belongs to all of them."""

ABANDONED_AFTER = timedelta(hours=1)
"""Unleased writes of other clients that may still go on are left alone for that long."""


@dataclass(frozen=True, slots=True)
class LeaseUse:
    """A lease and what can be said of its owner.

    Args:
        info: The lease.
        dead: It is ours and certainly nobody works under it any more.
        expired: Its time is over; containerd ignores it already.
        resumable: The work that it is of can be gone on with.
        node: In the graph.
    """

    info: LeaseInfo
    dead: bool
    expired: bool
    resumable: bool
    node: int

    @property
    def alive(self) -> bool:
        """Whether it holds anything."""
        return not self.dead and not self.expired


@dataclass(frozen=True, slots=True)
class Pin:
    """A blob that is a root by itself.

    Args:
        owner: Who pinned it, as the label says; empty if unknown.
        reason: Why, as the label says; empty if unknown.
        updated: When blob or labels last changed.
        selected: The filters that the inventory was taken with match.
        sentinel: It is the store's own mark and never goes.
    """

    owner: str
    reason: str
    updated: datetime
    selected: bool
    sentinel: bool


@dataclass(slots=True)
class Inventory:
    """The store at about one moment.

    Args:
        graph: Everything, by number.
        volumes: Node to record.
        images: Node to record.
        leases: All leases.
        ingests: Node to status.
        pins: Blob node to pin.
        rooted_snapshots: Nodes of snapshots that are roots by label.
        committed_snapshots: Node to whether somebody vouches for the files of the snapshot.
        leased_ingests: Refs that a live lease holds.
        orphaned_ingests: Refs that only leases hold which are not alive any more.
        shared: Blobs of which another namespace has a record too: their bytes stay.
        orphans: Raw digest to allocated bytes of files that no record of any namespace knows.
        foreign_names: Names in the blobs directory that are no digest.
    """

    graph: Graph = field(default_factory=Graph)
    volumes: dict[int, VolumeRecord] = field(default_factory=dict)
    images: dict[int, ImageRecord] = field(default_factory=dict)
    leases: list[LeaseUse] = field(default_factory=list)
    ingests: dict[int, IngestStatus] = field(default_factory=dict)
    pins: dict[int, Pin] = field(default_factory=dict)
    rooted_snapshots: list[int] = field(default_factory=list)
    committed_snapshots: dict[int, bool] = field(default_factory=dict)
    leased_ingests: set[str] = field(default_factory=set)
    orphaned_ingests: set[str] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)
    orphans: dict[bytes, int] = field(default_factory=dict)
    foreign_names: list[str] = field(default_factory=list)

    def roots(self) -> Iterator[int]:
        """Stream what is kept for its own sake, the most telling first."""
        yield from self.volumes
        yield from self.images
        yield from (lease.node for lease in self.leases if lease.alive)
        yield from self.pins
        yield from self.rooted_snapshots


def take_inventory(
    backing: Backing,
    *,
    now: datetime,
    pins: BlobFilters | None = None,
    others: OtherContent = tuple,
) -> Inventory:
    """Read everything once.

    Args:
        backing: The store.
        now: The current time; leases expire by it.
        pins: Which pinned blobs are to be marked as selected; None for none.
        others: Content of the other namespaces of this containerd.

    Raises:
        UnavailableError: containerd does not answer.
        InterruptedOperationError: The operation that this belongs to was stopped, see
            :func:`cas.model.cancellation.begin_operation`.
    """
    inventory = Inventory()
    # Files first: one that appears later than its record cannot then look like an orphan.
    files = _scan(backing)
    _read_volumes(inventory, backing)
    _read_images(inventory, backing)
    for blob in while_wanted(backing.content.iter_blobs()):
        files.digests.discard(bytes.fromhex(blob.digest.hex))
        _add_blob(inventory, blob, backing.snapshotter, pins)
    _read_snapshots(inventory, backing)
    _read_ingests(inventory, backing)
    _read_leases(inventory, backing, now)
    looked_at = {backing.namespace}
    for namespace, content in others():
        _mark_shared(inventory, content, files)
        looked_at.add(namespace)
    inventory.foreign_names = files.foreign
    if looked_at.issuperset(backing.namespaces.iter_namespaces()):
        # Else a file without a record of ours may well have one elsewhere.
        _keep_orphans(inventory, backing.blobs_directory, files)
    return inventory


def abandoned_ingests(inventory: Inventory, now: datetime) -> Iterator[tuple[int, IngestStatus]]:
    """Stream the writes that no live lease holds and that nobody went on with for an hour."""
    for node, ingest in inventory.ingests.items():
        held = ingest.ref in inventory.leased_ingests or ingest.ref in inventory.orphaned_ingests
        if not held and now - ingest.updated > ABANDONED_AFTER:
            yield node, ingest


def _read_volumes(inventory: Inventory, backing: Backing) -> None:
    for record in backing.volumes():
        keeps: list[Reference] = [] if record.converted else [(Kind.IMAGE, record.image)]
        digests = (record.root_digest, record.manifest_digest)
        keeps += [(Kind.BLOB, str(digest)) for digest in digests if digest is not None]
        if record.snapshotter == backing.snapshotter:
            keeps += ((Kind.SNAPSHOT, key) for key in record.snapshot_keys)
        node = inventory.graph.add(Kind.VOLUME, str(record.name), keeps=keeps)
        inventory.volumes[node] = record


def _read_images(inventory: Inventory, backing: Backing) -> None:
    for image in while_wanted(backing.images.iter_images()):
        node = inventory.graph.add(
            Kind.IMAGE,
            image.name,
            keeps=[
                (Kind.BLOB, str(image.target.digest)),
                *references(image.labels, backing.snapshotter),
            ],
            kept_by=referrers(image.labels, backing.snapshotter),
        )
        inventory.images[node] = image


def _add_blob(
    inventory: Inventory, blob: BlobInfo, snapshotter: str, selection: BlobFilters | None
) -> None:
    node = inventory.graph.add(
        Kind.BLOB,
        str(blob.digest),
        size=blob.size,
        keeps=references(blob.labels, snapshotter),
        kept_by=referrers(blob.labels, snapshotter),
    )
    if blob.labels.get(GC_ROOT):
        sentinel = STORE_ID in blob.labels
        inventory.pins[node] = Pin(
            owner=blob.labels.get(PIN_OWNER, ""),
            reason=blob.labels.get(PIN_REASON, ""),
            updated=changed(blob),
            selected=selection is not None and not sentinel and selection.matches(blob),
            sentinel=sentinel,
        )


def _read_snapshots(inventory: Inventory, backing: Backing) -> None:
    for snapshot in while_wanted(backing.snapshots.iter_snapshots()):
        keeps = list(references(snapshot.labels, backing.snapshotter))
        if snapshot.parent:
            keeps.append((Kind.SNAPSHOT, snapshot.parent))
        node = inventory.graph.add(
            Kind.SNAPSHOT,
            snapshot.name,
            keeps=keeps,
            kept_by=referrers(snapshot.labels, backing.snapshotter),
        )
        if snapshot.labels.get(GC_ROOT):
            inventory.rooted_snapshots.append(node)
        if snapshot.kind is SnapshotKind.COMMITTED:
            inventory.committed_snapshots[node] = DURABLE in snapshot.labels


def _read_ingests(inventory: Inventory, backing: Backing) -> None:
    check_operation()
    for ingest in backing.content.iter_ingests():
        node = inventory.graph.add(Kind.INGEST, ingest.ref, size=ingest.offset)
        inventory.ingests[node] = ingest


def _read_leases(inventory: Inventory, backing: Backing, now: datetime) -> None:
    for info in while_wanted(backing.leases.iter_leases()):
        try:
            resources = list(backing.leases.iter_resources(info.id))
        except LeaseNotFoundError:
            # Ended meanwhile; what it held has its reference by now, or is garbage.
            continue
        lease = LeaseUse(
            info,
            dead=is_abandoned(info),
            expired=_is_expired(info, now),
            resumable=is_resumable(info, now),
            node=inventory.graph.add(
                Kind.LEASE, info.id, keeps=_resources(resources, backing.snapshotter)
            ),
        )
        inventory.leases.append(lease)
        refs = inventory.leased_ingests if lease.alive else inventory.orphaned_ingests
        refs.update(resource.id for resource in resources if resource.type == "ingests")
    inventory.orphaned_ingests -= inventory.leased_ingests


def _is_expired(lease: LeaseInfo, now: datetime) -> bool:
    text = lease.labels.get(GC_EXPIRE)
    if text is None:
        return False
    try:
        return parse_instant(text, now=now) < now
    except InvalidNameError:
        # containerd, too, lets a lease with an unreadable time live for ever.
        return False


def _resources(resources: Iterable[LeaseResource], snapshotter: str) -> Iterator[Reference]:
    kinds = {
        "content": Kind.BLOB,
        "ingests": Kind.INGEST,
        "images": Kind.IMAGE,
        f"snapshots/{snapshotter}": Kind.SNAPSHOT,
    }
    for resource in resources:
        kind = kinds.get(resource.type)
        if kind is not None:
            yield kind, resource.id


def _scan(backing: Backing) -> BlobFileScan:
    if backing.blobs_directory is None:
        return BlobFileScan()
    return scan_blob_files(backing.blobs_directory)


def _mark_shared(inventory: Inventory, content: BlobCatalogue, files: BlobFileScan) -> None:
    for blob in while_wanted(content.iter_blobs()):
        files.digests.discard(bytes.fromhex(blob.digest.hex))
        node = inventory.graph.find(Kind.BLOB, str(blob.digest))
        if node is not None:
            inventory.shared.add(node)


def _keep_orphans(inventory: Inventory, directory: Path | None, files: BlobFileScan) -> None:
    if directory is None:
        return
    for digest in files.digests:
        size = allocated_size(directory / digest.hex())
        if size is not None:
            inventory.orphans[digest] = size
