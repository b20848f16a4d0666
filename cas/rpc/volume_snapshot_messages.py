"""Snapshots and layers of volumes as messages."""

__all__ = ["volume_history", "volume_snapshot"]

from cas._gen.cas.v1 import volumes_pb2
from cas.model.volume_layers import FrozenLayer, VolumeHistory
from cas.rpc import messages
from cas.volumes.status import VolumeSnapshot


def volume_history(value: VolumeHistory) -> volumes_pb2.VolumeHistory:
    """Write what a volume with snapshots is made of."""
    return volumes_pb2.VolumeHistory(
        parent=value.parent,
        layers=map(_frozen_layer, value.layers),
        next_number=value.next_number,
        moved_from=value.moved_from,
        unused=value.unused,
    )


def _frozen_layer(value: FrozenLayer) -> volumes_pb2.FrozenLayer:
    return volumes_pb2.FrozenLayer(
        key=value.key,
        parent=value.parent,
        snapshot=value.snapshot or "",
        created=messages.instant(value.created),
        frozen_from=value.frozen_from,
        moved_from=value.moved_from,
    )


def volume_snapshot(value: VolumeSnapshot) -> volumes_pb2.VolumeSnapshot:
    """Write a snapshot of a volume."""
    return volumes_pb2.VolumeSnapshot(
        volume=str(value.volume),
        name=value.name,
        created=messages.instant(value.created),
        own_bytes=value.own_bytes,
    )
