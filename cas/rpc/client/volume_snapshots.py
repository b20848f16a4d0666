"""Snapshots of volumes, asked for from the service; ``VolumeSnapshots`` has the promises."""

__all__ = ["VolumeSnapshotsClient"]

from collections.abc import Iterable, Iterator
from contextlib import closing

from cas._gen.cas.v1 import volumes_pb2, volumes_pb2_grpc
from cas.model.volume_name import VolumeName
from cas.rpc.client.calls import Calls
from cas.rpc.volume_snapshot_values import volume_snapshot
from cas.volumes.status import VolumeSnapshot


class VolumeSnapshotsClient:
    """The snapshots of a service's volumes; may be shared by threads.

    See :class:`cas.volumes.snapshots.VolumeSnapshots` for what holds after a failure, for the
    arguments and for the errors.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = volumes_pb2_grpc.VolumeSnapshotsStub(calls.channel)

    def create(
        self, names: Iterable[VolumeName], snapshot: str, *, quiesced: bool = False
    ) -> list[VolumeSnapshot]:
        """Take a snapshot of each volume; one that has a snapshot of this name keeps that."""
        request = volumes_pb2.CreateVolumeSnapshotRequest(
            volumes=map(str, names), snapshot=snapshot, quiesced=quiesced
        )
        action = f"take snapshot {snapshot!r}"
        answer = self._calls.unary(self._stub.Create, request, action=action)
        return list(map(volume_snapshot, answer.snapshots))

    def iter_snapshots(self, name: VolumeName) -> Iterator[VolumeSnapshot]:
        """Stream a volume's snapshots, oldest first."""
        request = volumes_pb2.ListVolumeSnapshotsRequest(volume=str(name))
        action = f"list snapshots of volume {name}"
        with closing(self._calls.stream(self._stub.List, request, action=action)) as answers:
            for answer in answers:
                yield from map(volume_snapshot, answer.snapshots)

    def roll_back(
        self,
        names: Iterable[VolumeName],
        snapshot: str,
        *,
        drop_later: bool = False,
        quiesced: bool = False,
    ) -> list[VolumeSnapshot]:
        """Make each volume what it was when the snapshot was taken; the snapshot stays."""
        request = volumes_pb2.RollBackVolumesRequest(
            volumes=map(str, names), snapshot=snapshot, drop_later=drop_later, quiesced=quiesced
        )
        action = f"roll back to snapshot {snapshot!r}"
        answer = self._calls.unary(self._stub.RollBack, request, action=action)
        return list(map(volume_snapshot, answer.snapshots))

    def remove(self, name: VolumeName, snapshot: str, *, quiesced: bool = False) -> bool:
        """Remove a snapshot of a volume; idempotent. Gives whether there was one."""
        request = volumes_pb2.RemoveVolumeSnapshotRequest(
            volume=str(name), snapshot=snapshot, quiesced=quiesced
        )
        action = f"remove snapshot {snapshot!r} of volume {name}"
        return self._calls.unary(self._stub.Remove, request, action=action).removed
