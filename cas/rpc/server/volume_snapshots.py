"""The service ``cas.v1.VolumeSnapshots``."""

__all__ = ["VolumeSnapshotsServicer"]

from collections.abc import Iterable, Iterator

from cas._gen.cas.v1 import volumes_pb2
from cas.model.volume_name import VolumeName
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.registry import ONLY_WORK
from cas.rpc.server.served import Workshop
from cas.rpc.volume_snapshot_messages import volume_snapshot
from cas.volumes.status import VolumeSnapshot


class VolumeSnapshotsServicer:
    """Serves the snapshots of a store's volumes.

    Args:
        shop: What it works with.
    """

    SERVICE = volumes_pb2.DESCRIPTOR.services_by_name["VolumeSnapshots"]
    READING = frozenset({"list"})
    UNGUARDED: frozenset[str] = frozenset()
    KINDS = ONLY_WORK

    def __init__(self, shop: Workshop) -> None:
        self._snapshots = shop.store.volume_snapshots

    def create(
        self, request: volumes_pb2.CreateVolumeSnapshotRequest, _call: Call
    ) -> volumes_pb2.VolumeSnapshotsResponse:
        """Take snapshots."""
        names = _names(request.volumes)
        return _response(self._snapshots.create(names, request.snapshot, quiesced=request.quiesced))

    def list(
        self, request: volumes_pb2.ListVolumeSnapshotsRequest, _call: Call
    ) -> Iterator[volumes_pb2.VolumeSnapshotsResponse]:
        """List the snapshots of a volume."""
        found = self._snapshots.iter_snapshots(VolumeName.parse(request.volume))
        for group in batched(map(volume_snapshot, found)):
            yield volumes_pb2.VolumeSnapshotsResponse(snapshots=group)

    def roll_back(
        self, request: volumes_pb2.RollBackVolumesRequest, _call: Call
    ) -> volumes_pb2.VolumeSnapshotsResponse:
        """Return to snapshots."""
        return _response(
            self._snapshots.roll_back(
                _names(request.volumes),
                request.snapshot,
                drop_later=request.drop_later,
                quiesced=request.quiesced,
            )
        )

    def remove(
        self, request: volumes_pb2.RemoveVolumeSnapshotRequest, _call: Call
    ) -> volumes_pb2.RemoveVolumeSnapshotResponse:
        """Remove a snapshot."""
        name = VolumeName.parse(request.volume)
        removed = self._snapshots.remove(name, request.snapshot, quiesced=request.quiesced)
        return volumes_pb2.RemoveVolumeSnapshotResponse(removed=removed)


def _names(texts: Iterable[str]) -> list[VolumeName]:
    return [VolumeName.parse(text) for text in texts]


def _response(snapshots: Iterable[VolumeSnapshot]) -> volumes_pb2.VolumeSnapshotsResponse:
    return volumes_pb2.VolumeSnapshotsResponse(snapshots=map(volume_snapshot, snapshots))
