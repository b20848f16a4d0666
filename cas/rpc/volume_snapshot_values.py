"""Messages about snapshots and layers of volumes as values."""

__all__ = ["volume_history", "volume_snapshot"]

from cas._gen.cas.v1 import volumes_pb2
from cas.model.volume_layers import FrozenLayer, VolumeHistory
from cas.model.volume_name import VolumeName
from cas.rpc import values
from cas.volumes.status import VolumeSnapshot


def volume_history(message: volumes_pb2.VolumeHistory) -> VolumeHistory:
    """Read what a volume with snapshots is made of."""
    return VolumeHistory(
        parent=message.parent,
        layers=tuple(map(_frozen_layer, message.layers)),
        next_number=message.next_number,
        moved_from=message.moved_from if message.HasField("moved_from") else None,
        unused=message.unused,
    )


def _frozen_layer(message: volumes_pb2.FrozenLayer) -> FrozenLayer:
    return FrozenLayer(
        key=message.key,
        parent=message.parent,
        snapshot=message.snapshot or None,
        created=values.instant(message.created),
        frozen_from=message.frozen_from,
        moved_from=message.moved_from if message.HasField("moved_from") else None,
    )


def volume_snapshot(message: volumes_pb2.VolumeSnapshot) -> VolumeSnapshot:
    """Read a snapshot of a volume."""
    return VolumeSnapshot(
        volume=VolumeName.parse(message.volume),
        name=message.name,
        created=values.instant(message.created),
        own_bytes=message.own_bytes,
    )
