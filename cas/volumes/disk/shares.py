"""What each disk takes, for the account of the whole store."""

__all__ = ["iter_disk_shares"]

from collections.abc import Iterable, Iterator

from cas.model.layout import Layout
from cas.store.account.usage_values import VolumeShare
from cas.volumes.disk.room import bytes_alone_and_shared, snapshot_bytes
from cas.volumes.status import VolumeStatus


def iter_disk_shares(layout: Layout, disks: Iterable[VolumeStatus]) -> Iterator[VolumeShare]:
    """Measure disks that were looked at; damaged ones are left out.

    Raises:
        StorageError: One cannot be measured.
        CorruptVolumeError: The history of one's snapshots cannot be read.
    """
    for status in disks:
        if (disk := status.disk) is not None:
            own, shared = bytes_alone_and_shared(disk.path)
            yield VolumeShare(
                str(status.name),
                own_bytes=own,
                shared_bytes=shared,
                snapshot_bytes=snapshot_bytes(layout.disk(status.name, clear=disk.clear)),
                format=disk.format,
                virtual_size=disk.virtual_size,
                clear=disk.clear,
            )
