"""Snapshots of one snapshotter; this module mounts nothing."""

__all__ = ["Snapshots"]

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import grpc

from cas._gen.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from cas.containerd.leases import Leases
from cas.containerd.translation import translated
from cas.containerd.transport import Transport
from cas.containerd.values import checked_labels, instant, label_changes, mount_values
from cas.errors import DaemonError, InUseError, SnapshotNotFoundError
from cas.model.records import LeaseID, Mount, SnapshotInfo, SnapshotKind, SnapshotUsage

_logger = logging.getLogger(__name__)

_NO_SNAPSHOT = {grpc.StatusCode.NOT_FOUND: SnapshotNotFoundError}
_KINDS = {
    snapshots_pb2.Kind.VIEW: SnapshotKind.VIEW,
    snapshots_pb2.Kind.ACTIVE: SnapshotKind.ACTIVE,
    snapshots_pb2.Kind.COMMITTED: SnapshotKind.COMMITTED,
}


class Snapshots:
    """The snapshots of one namespace in one snapshotter.

    Args:
        transport: Channel and namespace.
        snapshotter: Id of the snapshotter plugin.
        leases: Of the same namespace.
    """

    def __init__(self, transport: Transport, snapshotter: str, leases: Leases) -> None:
        self._transport = transport
        self._leases = leases
        self._stub = snapshots_pb2_grpc.SnapshotsStub(transport.channel)
        self.snapshotter = snapshotter

    def prepare(
        self, key: str, parent: str, lease: LeaseID | None, labels: Mapping[str, str]
    ) -> list[Mount]:
        """Make a writable snapshot on a committed one, or on nothing if ``parent`` is empty.

        Args:
            key: Of the new snapshot.
            parent: Name of the committed one.
            lease: Holds the new one; None for one that its labels root.
            labels: Of the new one.

        Raises:
            AlreadyExistsError: The key is taken. Before containerd 1.6.32 and 1.7.17 the lease
                then does not hold the snapshot: add it to the lease.
            SnapshotNotFoundError: There is no such parent.
            LeaseNotFoundError: There is no such lease.
            UsageError: The parent is not committed, or there is no such snapshotter.
        """
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=checked_labels(labels)
        )

        def prepare() -> list[Mount]:
            action = f"prepare snapshot {key!r} on {parent!r}"
            with self._leases.holding(lease), translated(action, nearer=_NO_SNAPSHOT):
                answer = self._transport.unary(self._stub.Prepare, request, lease=lease)
            return mount_values(answer.mounts)

        return _despite_remains(prepare)

    def view(
        self, key: str, parent: str, lease: LeaseID | None, labels: Mapping[str, str]
    ) -> list[Mount]:
        """Make a read-only snapshot; otherwise as :meth:`prepare`."""
        request = snapshots_pb2.ViewSnapshotRequest(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=checked_labels(labels)
        )

        def view() -> list[Mount]:
            action = f"view snapshot {parent!r} as {key!r}"
            with self._leases.holding(lease), translated(action, nearer=_NO_SNAPSHOT):
                answer = self._transport.unary(self._stub.View, request, lease=lease)
            return mount_values(answer.mounts)

        return _despite_remains(view)

    def mounts(self, key: str) -> list[Mount]:
        """Say how a writable snapshot or a view is mounted.

        Raises:
            SnapshotNotFoundError: There is no such key.
            ConflictError: The snapshot is committed.
        """
        request = snapshots_pb2.MountsRequest(snapshotter=self.snapshotter, key=key)
        with translated(f"get mounts of snapshot {key!r}", nearer=_NO_SNAPSHOT):
            return mount_values(self._transport.unary(self._stub.Mounts, request).mounts)

    def commit(self, name: str, key: str, lease: LeaseID, labels: Mapping[str, str]) -> None:
        """Turn a writable snapshot into a committed one of another name.

        Its labels are replaced. containerd syncs its record, not its files: do that before.

        Raises:
            AlreadyExistsError: The name is taken; the key stays, remove it. As with
                :meth:`prepare` the lease may not hold the existing snapshot.
            SnapshotNotFoundError: There is no such key.
            LeaseNotFoundError: There is no such lease.
            ConflictError: The key is a view.
        """
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self.snapshotter, name=name, key=key, labels=checked_labels(labels)
        )
        action = f"commit snapshot {key!r} as {name!r}"
        with self._leases.holding(lease), translated(action, nearer=_NO_SNAPSHOT):
            self._transport.unary(self._stub.Commit, request, lease=lease)

    def remove(self, key: str) -> bool:
        """Remove a snapshot; its files go with the next collection. Idempotent.

        Returns:
            Whether the snapshot existed.

        Raises:
            InUseError: Other snapshots stand on it.
        """
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key)
        nearer = {**_NO_SNAPSHOT, grpc.StatusCode.FAILED_PRECONDITION: InUseError}
        try:
            with translated(f"remove snapshot {key!r}", nearer=nearer):
                self._transport.unary(self._stub.Remove, request)
        except SnapshotNotFoundError:
            return False
        return True

    def request_sweep(self, lease: LeaseID) -> None:
        """Make the next collection delete the files of all snapshots that are no more.

        A collection that fails to delete files, as on a full disk, reports success, and later
        ones look again only after another snapshot was removed: so one is made and removed.

        Raises:
            NoSpaceError: The file system is still full.
            LeaseNotFoundError: There is no such lease.
        """
        key = f"cas-sweep-{uuid.uuid4().hex}"
        self.prepare(key, "", lease, {})
        self.remove(key)

    def stat(self, key: str) -> SnapshotInfo:
        """Give the record of a snapshot by key or name.

        Raises:
            SnapshotNotFoundError: There is none.
        """
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self.snapshotter, key=key)
        with translated(f"stat snapshot {key!r}", nearer=_NO_SNAPSHOT):
            return _info(self._transport.unary(self._stub.Stat, request).info)

    def iter_snapshots(self, filters: Sequence[str] = ()) -> Iterator[SnapshotInfo]:
        """Yield the snapshots that match any of the filters; all without a filter."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=self.snapshotter, filters=filters)
        with translated("list snapshots"):
            for answer in self._transport.stream(self._stub.List, request):
                for info in answer.info:
                    yield _info(info)

    def usage(self, key: str) -> SnapshotUsage:
        """Measure a snapshot without its parents; walks the files of a writable one.

        Raises:
            SnapshotNotFoundError: There is no such key or name.
        """
        request = snapshots_pb2.UsageRequest(snapshotter=self.snapshotter, key=key)
        with translated(f"measure snapshot {key!r}", nearer=_NO_SNAPSHOT):
            answer = self._transport.unary(self._stub.Usage, request, looks=True)
        return SnapshotUsage(size=answer.size, inodes=answer.inodes)

    def update_labels(self, key: str, labels: Mapping[str, str | None]) -> SnapshotInfo:
        """Set labels, remove those that are None, leave the others.

        Raises:
            SnapshotNotFoundError: There is no such key or name.
        """
        changed, mask = label_changes(labels)
        if not changed:
            return self.stat(key)
        request = snapshots_pb2.UpdateSnapshotRequest(
            snapshotter=self.snapshotter,
            info=snapshots_pb2.Info(name=key, labels=changed),
            update_mask=mask,
        )
        with translated(f"label snapshot {key!r}", nearer=_NO_SNAPSHOT):
            return _info(self._transport.unary(self._stub.Update, request).info)


def _despite_remains(make: Callable[[], list[Mount]]) -> list[Mount]:
    """Make a snapshot, with a second try if containerd fails at the first.

    Killed between renaming a snapshot's directory and committing its record, containerd gives the
    same number out again and then meets the directory: it fails, and removes what was in the way.
    Source: snapshots/overlay/overlay.go, createSnapshot.
    """
    try:
        return make()
    except DaemonError as error:
        _logger.info("snapshot is made at the second try error=%s", error)
        return make()


def _info(info: snapshots_pb2.Info) -> SnapshotInfo:
    if info.kind not in _KINDS:
        raise DaemonError(f"snapshot {info.name!r} is of the unknown kind {info.kind}")
    return SnapshotInfo(
        name=info.name,
        parent=info.parent,
        kind=_KINDS[info.kind],
        labels=dict(info.labels),
        created=instant(info.created_at),
        updated=instant(info.updated_at),
    )
