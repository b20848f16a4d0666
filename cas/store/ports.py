"""What the store needs from containerd, as protocols; the adapter never imports this module.

mypy proves the fit where ``cas.app`` passes the adapter for the protocol. Every method raises
classes of :mod:`cas.errors` only. Positional parameters have no names that bind the adapter.
"""

__all__ = [
    "BlobCatalogue",
    "BlobReader",
    "BlobWriter",
    "ContentStore",
    "Differ",
    "EventPublisher",
    "ImageStore",
    "IngestCatalogue",
    "LeaseResources",
    "LeaseStore",
    "Leases",
    "NamespaceStore",
    "SnapshotCatalogue",
    "SnapshotStore",
    "SnapshotWriter",
    "Writer",
]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.events import EventKind
from cas.model.records import (
    BlobInfo,
    ImageRecord,
    IngestStatus,
    LeaseID,
    LeaseInfo,
    LeaseResource,
    Mount,
    SnapshotInfo,
    SnapshotUsage,
)


class BlobCatalogue(Protocol):
    """Records of committed blobs."""

    def info(self, digest: Digest, /) -> BlobInfo:
        """Give the record, or raise ``BlobNotFoundError``; says nothing about the file."""

    def iter_blobs(self, filters: Sequence[str] = (), /) -> Iterator[BlobInfo]:
        """Stream the records that match any of the filters, all without a filter."""

    def update_labels(self, digest: Digest, labels: Mapping[str, str | None], /) -> BlobInfo:
        """Set labels, remove those with the value None, leave the others."""

    def delete(self, digest: Digest, /) -> bool:
        """Remove the record; False if there was none. The file goes with the next collection."""


class BlobReader(Protocol):
    """Bytes of committed blobs."""

    def read(self, digest: Digest, /, *, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        """Stream ``size`` bytes from ``offset``, 0 for all; not verified against the digest."""

    def read_all(self, digest: Digest, /, *, limit: int) -> bytes:
        """Give the whole blob, or raise ``LimitExceededError`` above ``limit`` bytes."""


class Writer(Protocol):
    """An open write on one ref; its stream is ended by ``close`` or by leaving the context."""

    @property
    def offset(self) -> int:
        """Bytes that containerd has."""

    @property
    def digest(self) -> Digest | None:
        """What containerd's bytes hash to; None when it did not say."""

    def write(self, data: bytes, /) -> object:
        """Append at ``offset``."""

    def restart(self) -> None:
        """Forget containerd's bytes: ``offset`` is 0 afterwards."""

    def commit(self, size: int, expected: Digest, labels: Mapping[str, str], /) -> bool:
        """Publish; False if the blob existed already, whose labels then stay as they were."""

    def close(self) -> None:
        """End the stream; the uncommitted bytes stay until abort or the end of the lease."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class BlobWriter(Protocol):
    """Ways to bring a blob in, all under a lease."""

    def open_writer(self, ref: str, lease: LeaseID, /, *, total: int | None) -> Writer:
        """Open or resume the write of ``ref``."""

    def put(
        self, ref: str, lease: LeaseID, data: bytes, expected: Digest, labels: Mapping[str, str], /
    ) -> bool:
        """Upload in one message; False if the blob existed already."""

    def adopt(
        self, ref: str, lease: LeaseID, digest: Digest, size: int, labels: Mapping[str, str], /
    ) -> bool:
        """Register a file that lies in the blobs directory; False if containerd does not see it."""


class IngestCatalogue(Protocol):
    """Uncommitted writes."""

    def iter_ingests(self) -> Iterator[IngestStatus]:
        """Stream them."""

    def abort(self, ref: str, /) -> bool:
        """Drop one with its bytes; False if there was none."""


class ContentStore(BlobCatalogue, BlobReader, BlobWriter, IngestCatalogue, Protocol):
    """Everything about content."""


class LeaseStore(Protocol):
    """Leases."""

    def create(self, lease: LeaseID, labels: Mapping[str, str], /) -> LeaseInfo:
        """Create, or raise ``AlreadyExistsError``."""

    def delete(self, lease: LeaseID, /, *, sync: bool = False) -> bool:
        """Delete; False if there was none. ``sync`` waits for a collection."""

    def iter_leases(self, filters: Sequence[str] = (), /) -> Iterator[LeaseInfo]:
        """Stream the leases that match."""

    def collect_garbage(self) -> None:
        """Run one collection and wait for its end."""


class LeaseResources(Protocol):
    """What leases hold."""

    def add_resource(self, lease: LeaseID, resource: LeaseResource, /) -> None:
        """Pin; the resource need not exist. Raises ``LeaseNotFoundError``."""

    def iter_resources(self, lease: LeaseID, /) -> Iterator[LeaseResource]:
        """Stream what the lease holds. Raises ``LeaseNotFoundError``."""


class Leases(LeaseStore, LeaseResources, Protocol):
    """Everything about leases."""


class ImageStore(Protocol):
    """Names that point to manifests or indexes."""

    def create(self, name: str, target: Descriptor, labels: Mapping[str, str], /) -> ImageRecord:
        """Create, or raise ``AlreadyExistsError``."""

    def get(self, name: str, /) -> ImageRecord:
        """Give the record, or raise ``ImageNotFoundError``."""

    def update_target(
        self, name: str, target: Descriptor, /, labels: Mapping[str, str] | None = None
    ) -> ImageRecord:
        """Point an existing name elsewhere; ``labels`` replace the record's if given."""

    def update_labels(
        self, record: ImageRecord, labels: Mapping[str, str | None], /
    ) -> ImageRecord:
        """Set labels, remove those with the value None, leave the others."""

    def delete(self, name: str, /, *, sync: bool = False) -> bool:
        """Remove the name; False if there was none. ``sync`` waits for a collection."""

    def iter_images(self, filters: Sequence[str] = (), /) -> Iterator[ImageRecord]:
        """Stream the records that match."""


class SnapshotCatalogue(Protocol):
    """Records of snapshots of one snapshotter."""

    def stat(self, key: str, /) -> SnapshotInfo:
        """Give the record, or raise ``SnapshotNotFoundError``."""

    def iter_snapshots(self, filters: Sequence[str] = (), /) -> Iterator[SnapshotInfo]:
        """Stream the records that match."""

    def usage(self, key: str, /) -> SnapshotUsage:
        """Measure one snapshot without its parents."""

    def update_labels(self, key: str, labels: Mapping[str, str | None], /) -> SnapshotInfo:
        """Set labels, remove those with the value None, leave the others."""


class SnapshotWriter(Protocol):
    """Making and removing snapshots."""

    def prepare(
        self, key: str, parent: str, lease: LeaseID | None, labels: Mapping[str, str], /
    ) -> list[Mount]:
        """Make a writable snapshot, or raise ``AlreadyExistsError``; no lease if labels root it."""

    def view(
        self, key: str, parent: str, lease: LeaseID | None, labels: Mapping[str, str], /
    ) -> list[Mount]:
        """Make a read-only snapshot; otherwise as :meth:`prepare`."""

    def mounts(self, key: str, /) -> list[Mount]:
        """Say how an active snapshot or view is mounted."""

    def commit(self, name: str, key: str, lease: LeaseID, labels: Mapping[str, str], /) -> None:
        """Turn an active snapshot into a committed one, or raise ``AlreadyExistsError``."""

    def remove(self, key: str, /) -> bool:
        """Remove; False if there was none. Raises ``InUseError`` when it has children."""

    def request_sweep(self, lease: LeaseID, /) -> None:
        """Make the next collection delete the files of all snapshots that are no more."""


class SnapshotStore(SnapshotCatalogue, SnapshotWriter, Protocol):
    """Everything about snapshots."""


class Differ(Protocol):
    """Unpacking of layers."""

    def apply(
        self,
        descriptor: Descriptor,
        mounts: Sequence[Mount],
        lease: LeaseID,
        /,
        *,
        sync: bool = True,
        watch: Callable[[], None],
        watch_seconds: float = 0.25,
    ) -> Descriptor:
        """Unpack a layer blob onto mounts; the answer's digest is the diff ID's hex."""


class NamespaceStore(Protocol):
    """Labels of containerd's namespaces."""

    def labels(self, name: str, /) -> Mapping[str, str]:
        """Give the labels; empty for a namespace that was never made."""

    def set_labels(self, name: str, labels: Mapping[str, str], /) -> None:
        """Set labels, making the namespace if needed."""

    def iter_namespaces(self) -> Iterator[str]:
        """Stream the names."""


class EventPublisher(Protocol):
    """Tells listeners in all processes what happened."""

    def publish(self, kind: EventKind, names: Iterable[str], /) -> None:
        """Tell it; never fails."""
