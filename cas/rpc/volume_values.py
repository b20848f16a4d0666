"""Messages about volumes as values."""

__all__ = ["disk", "disk_request", "foreign_entry", "volume", "volume_record", "volume_usage"]

from pathlib import Path

from cas._gen.cas.v1 import volumes_pb2
from cas.errors import InvalidNameError
from cas.model.digest import ChainID, Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskOrigin, DiskRecord, DiskRequest
from cas.model.reference import check_image_name
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.rpc import values
from cas.rpc.volume_snapshot_values import volume_history
from cas.store.image.disks import as_digest
from cas.volumes.status import DiskStatus, ForeignEntry, VolumeState, VolumeStatus, VolumeUsage

_VOLUME_STATES = {
    volumes_pb2.VOLUME_STATE_ACTIVE: VolumeState.ACTIVE,
    volumes_pb2.VOLUME_STATE_INACTIVE: VolumeState.INACTIVE,
    volumes_pb2.VOLUME_STATE_CORRUPT: VolumeState.CORRUPT,
}
_DISK_FORMATS = {
    volumes_pb2.DISK_FORMAT_RAW: DiskFormat.RAW,
    volumes_pb2.DISK_FORMAT_QCOW2: DiskFormat.QCOW2,
    volumes_pb2.DISK_FORMAT_VMDK: DiskFormat.VMDK,
    volumes_pb2.DISK_FORMAT_VHDX: DiskFormat.VHDX,
    volumes_pb2.DISK_FORMAT_ISO: DiskFormat.ISO,
}


def volume(message: volumes_pb2.Volume) -> VolumeStatus:
    """Read a volume as it was found."""
    name = VolumeName.parse(message.name)
    if message.state not in _VOLUME_STATES:
        raise InvalidNameError(
            f"volume {name} has the unknown state {message.state}", value=message.state
        )
    return VolumeStatus(
        name=name,
        state=_VOLUME_STATES[message.state],
        rootfs=Path(message.rootfs),
        record=volume_record(message.record, name) if message.HasField("record") else None,
        problem=message.problem or None,
        disk=disk(message.disk, name) if message.HasField("disk") else None,
    )


def volume_record(message: volumes_pb2.VolumeRecord, name: VolumeName) -> VolumeRecord:
    """Read what a volume was made from."""
    return VolumeRecord(
        name=name,
        image=message.image,
        root_digest=Digest.parse(message.root_digest) if message.root_digest else None,
        manifest_digest=Digest.parse(message.manifest_digest) if message.manifest_digest else None,
        chain_id=ChainID.parse(message.chain_id) if message.chain_id else None,
        snapshot_key=message.snapshot_key,
        snapshotter=message.snapshotter,
        read_only=message.read_only,
        created=values.instant(message.created),
        history=volume_history(message.history) if message.HasField("history") else None,
    )


def volume_usage(message: volumes_pb2.VolumeUsageResponse) -> VolumeUsage:
    """Read what a volume takes."""
    return VolumeUsage(
        own_bytes=message.own_bytes,
        shared_bytes=message.shared_bytes,
        inodes=message.inodes,
        snapshot_bytes=message.snapshot_bytes,
        users=tuple((user.pid, user.name) for user in message.users),
    )


def foreign_entry(message: volumes_pb2.ForeignEntry) -> ForeignEntry:
    """Read something that is no volume."""
    return ForeignEntry(Path(message.path), message.reason)


def disk(message: volumes_pb2.Disk, name: VolumeName) -> DiskStatus:
    """Read a disk volume as it was found."""
    return DiskStatus(
        path=Path(message.path),
        clear=message.clear,
        format=_disk_format(message.format),
        virtual_size=message.virtual_size,
        allocated=message.allocated,
        snapshots=message.snapshots,
        record=_disk_record(message.record, name) if message.HasField("record") else None,
    )


def _disk_record(message: volumes_pb2.DiskRecord, name: VolumeName) -> DiskRecord:
    """Read what a disk volume was made from."""
    origin = None
    if message.HasField("origin"):
        origin = DiskOrigin(
            message.origin.image,
            Digest.parse(message.origin.manifest_digest),
            Digest.parse(message.origin.blob_digest),
        )
    return DiskRecord(
        name=name,
        origin=origin,
        format=_disk_format(message.format),
        size=message.size if message.HasField("size") else None,
        read_only=message.read_only,
        created=values.instant(message.created),
    )


def disk_request(message: volumes_pb2.PrepareDiskRequest) -> DiskRequest:
    """Read what a disk volume is to be.

    Raises:
        UsageError: It cannot be.
    """
    source = message.source or None
    if source is not None and as_digest(source) is None:
        check_image_name(source)
    return DiskRequest(
        source=source,
        size=message.size if message.HasField("size") else None,
        format=_disk_format(message.format) if message.format else None,
        read_only=message.read_only,
        clear=message.clear,
    )


def _disk_format(number: volumes_pb2.DiskFormat.ValueType) -> DiskFormat:
    if number not in _DISK_FORMATS:
        raise InvalidNameError(f"there is no disk format {number}", value=number)
    return _DISK_FORMATS[number]
