"""Volumes as messages: what the service answers, and what a client asks for."""

__all__ = ["disk", "disk_request", "foreign_entry", "volume", "volume_record", "volume_usage"]

from cas._gen.cas.v1 import volumes_pb2
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRecord, DiskRequest
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.rpc import messages
from cas.rpc.volume_snapshot_messages import volume_history
from cas.volumes.status import DiskStatus, ForeignEntry, VolumeState, VolumeStatus, VolumeUsage

_VOLUME_STATES = {
    VolumeState.ACTIVE: volumes_pb2.VOLUME_STATE_ACTIVE,
    VolumeState.INACTIVE: volumes_pb2.VOLUME_STATE_INACTIVE,
    VolumeState.CORRUPT: volumes_pb2.VOLUME_STATE_CORRUPT,
}


_DISK_FORMATS = {
    DiskFormat.RAW: volumes_pb2.DISK_FORMAT_RAW,
    DiskFormat.QCOW2: volumes_pb2.DISK_FORMAT_QCOW2,
    DiskFormat.VMDK: volumes_pb2.DISK_FORMAT_VMDK,
    DiskFormat.VHDX: volumes_pb2.DISK_FORMAT_VHDX,
    DiskFormat.ISO: volumes_pb2.DISK_FORMAT_ISO,
}


def volume(value: VolumeStatus) -> volumes_pb2.Volume:
    """Write a volume as it was found."""
    return volumes_pb2.Volume(
        name=str(value.name),
        state=_VOLUME_STATES[value.state],
        rootfs=messages.text(value.rootfs),
        problem=messages.text(value.problem or ""),
        record=None if value.record is None else volume_record(value.record),
        disk=None if value.disk is None else disk(value.disk),
    )


def volume_record(value: VolumeRecord) -> volumes_pb2.VolumeRecord:
    """Write what a volume was made from; its name stands beside it."""
    return volumes_pb2.VolumeRecord(
        image=value.image,
        root_digest=str(value.root_digest or ""),
        manifest_digest=str(value.manifest_digest or ""),
        chain_id="" if value.chain_id is None else str(value.chain_id),
        snapshot_key=value.snapshot_key,
        snapshotter=value.snapshotter,
        read_only=value.read_only,
        created=messages.instant(value.created),
        history=None if value.history is None else volume_history(value.history),
    )


def volume_usage(value: VolumeUsage) -> volumes_pb2.VolumeUsageResponse:
    """Write what a volume takes."""
    return volumes_pb2.VolumeUsageResponse(
        own_bytes=value.own_bytes,
        shared_bytes=value.shared_bytes,
        inodes=value.inodes,
        snapshot_bytes=value.snapshot_bytes,
        users=[
            volumes_pb2.VolumeUser(pid=pid, name=messages.text(name)) for pid, name in value.users
        ],
    )


def foreign_entry(value: ForeignEntry) -> volumes_pb2.ForeignEntry:
    """Write something that is no volume."""
    return volumes_pb2.ForeignEntry(
        path=messages.text(value.path), reason=messages.text(value.reason)
    )


def disk(value: DiskStatus) -> volumes_pb2.Disk:
    """Write a disk volume as it was found."""
    return volumes_pb2.Disk(
        path=messages.text(value.path),
        clear=value.clear,
        format=_DISK_FORMATS[value.format],
        virtual_size=value.virtual_size,
        allocated=value.allocated,
        snapshots=value.snapshots,
        record=None if value.record is None else _disk_record(value.record),
    )


def _disk_record(value: DiskRecord) -> volumes_pb2.DiskRecord:
    """Write what a disk volume was made from; its name stands beside it."""
    origin = value.origin
    return volumes_pb2.DiskRecord(
        origin=None
        if origin is None
        else volumes_pb2.DiskOrigin(
            image=origin.image,
            manifest_digest=str(origin.manifest_digest),
            blob_digest=str(origin.blob_digest),
        ),
        format=_DISK_FORMATS[value.format],
        size=value.size,
        read_only=value.read_only,
        created=messages.instant(value.created),
    )


def disk_request(
    name: VolumeName, value: DiskRequest, *, replace: bool = False
) -> volumes_pb2.PrepareDiskRequest:
    """Write what a disk volume is to be."""
    return volumes_pb2.PrepareDiskRequest(
        name=str(name),
        source=value.source or "",
        size=value.size,
        format=volumes_pb2.DISK_FORMAT_UNSPECIFIED
        if value.format is None
        else _DISK_FORMATS[value.format],
        read_only=value.read_only,
        clear=value.clear,
        replace=replace,
    )
