"""The JSON form of volumes, which several commands print."""

__all__ = ["volume_document"]

from typing import TYPE_CHECKING

from cas.cli.output import timestamp

if TYPE_CHECKING:
    from cas.volumes.status import DiskStatus, VolumeStatus


def volume_document(status: "VolumeStatus") -> dict[str, object]:
    """Give all that is known of a volume, under stable keys."""
    record = status.record
    return {
        "name": str(status.name),
        "state": str(status.state),
        "problem": status.problem,
        "rootfs": str(status.rootfs),
        "image": record.image if record else None,
        "root_digest": str(record.root_digest) if record and record.root_digest else None,
        "manifest_digest": str(record.manifest_digest)
        if record and record.manifest_digest
        else None,
        "chain_id": str(record.chain_id) if record and record.chain_id else None,
        "snapshot_key": record.snapshot_key if record else None,
        "snapshotter": record.snapshotter if record else None,
        "read_only": record.read_only if record else None,
        "created": timestamp(record.created) if record else None,
        "disk": _disk_document(status.disk) if status.disk else None,
    }


def _disk_document(disk: "DiskStatus") -> dict[str, object]:
    record = disk.record
    origin = record.origin if record else None
    return {
        "path": str(disk.path),
        "clear": disk.clear,
        "format": str(disk.format),
        "virtual_size": disk.virtual_size,
        "allocated": disk.allocated,
        "snapshots": disk.snapshots,
        "known": record is not None,
        "image": origin.image if origin else None,
        "manifest_digest": str(origin.manifest_digest) if origin else None,
        "blob_digest": str(origin.blob_digest) if origin else None,
        "size": record.size if record else None,
        "read_only": record.read_only if record else None,
        "created": timestamp(record.created) if record else None,
    }
