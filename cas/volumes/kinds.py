"""The kinds of volumes that a store has, wired once for all use cases."""

__all__ = ["VolumeKinds"]

from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.volumes.activation import Activation
from cas.volumes.container_snapshots import ContainerSnapshots
from cas.volumes.containers import ContainerVolumes
from cas.volumes.disk.disks import DiskVolumes
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.disk.snapshots import DiskSnapshots
from cas.volumes.kind import VolumeKind, kind_of
from cas.volumes.removal import Removal
from cas.volumes.snapshot_kind import SnapshotKind


class VolumeKinds:
    """Container volumes and disk volumes.

    Args:
        backing: The store.
        locks: Its locks.
        leasing: Makes leases.
        qemu: Works on disk images.
    """

    def __init__(self, backing: Backing, locks: Locks, leasing: Leasing, qemu: QemuImg) -> None:
        self._backing = backing
        self.qemu = qemu
        self.activation = Activation(backing)
        self.removal, self.disk_removal = Removal(backing, self.activation), DiskRemoval(backing)
        settling = DiskSettling(backing, qemu)
        self.containers = ContainerVolumes(
            backing, locks, leasing, activation=self.activation, removal=self.removal
        )
        self.disks = DiskVolumes(backing, locks, self.disk_removal, settling)
        self.all: tuple[VolumeKind, ...] = (self.containers, self.disks)
        self.snapshots: tuple[SnapshotKind, ...] = (
            ContainerSnapshots(backing, leasing),
            DiskSnapshots(backing, settling),
        )

    def of(self, name: VolumeName) -> VolumeKind:
        """Give the kind that a volume is of.

        Raises:
            VolumeNotFoundError: There is no such volume.
        """
        return kind_of(self._backing, self.all, name)

    def snapshots_of(self, name: VolumeName) -> SnapshotKind:
        """Give the snapshots of the kind that a volume is of; raises as :meth:`of`."""
        return kind_of(self._backing, self.snapshots, name)
