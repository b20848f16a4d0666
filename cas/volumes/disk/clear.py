"""Disk volumes in clear, while nobody knows what is in the vault.

They need neither the vault nor containerd: file and record lie beside each other in clear. New ones
are not made here: whether a name is free, or held, only the open vault tells.
"""

__all__ = ["ClearDisks"]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cas.errors import VolumeNotFoundError
from cas.model.events import EventKind
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks
from cas.volumes.disk.disks import DiskVolumes
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.disk.removal import DiskRemoval
from cas.volumes.disk.scan import is_disk
from cas.volumes.disk.settling import DiskSettling
from cas.volumes.status import VolumeStatus


class _NobodyListens:
    def publish(self, kind: EventKind, names: Iterable[str], /) -> None:
        """Tell nobody: the bus is containerd's."""


@dataclass(frozen=True, slots=True)
class _ClearPlace:
    layout: Layout
    limits: Limits
    events: _NobodyListens = field(default_factory=_NobodyListens)


class ClearDisks:
    """What :class:`cas.volumes.volumes.Volumes` does, for disks in clear; see there.

    Args:
        layout: Where.
        limits: Against hostile input.
        check_open: Raises while the vault is locked.
        qemu: Works on disk images.
    """

    def __init__(
        self, layout: Layout, limits: Limits, check_open: Callable[[], object], qemu: QemuImg
    ) -> None:
        place = _ClearPlace(layout, limits)
        self._layout = layout
        self._locks = Locks(layout)
        self._disks = DiskVolumes(place, self._locks, DiskRemoval(place), DiskSettling(place, qemu))
        self._check_open = check_open

    def iter_volumes(self) -> Iterator[VolumeStatus]:
        """Stream every disk in clear by name, damaged ones included."""
        directory = self._layout.clear_volumes
        return (each for each in self._disks.statuses() if each.rootfs.parent == directory)

    def get(self, name: VolumeName) -> VolumeStatus:
        """Look at one.

        Raises:
            VaultLockedError: If there is one of this name, it is in the vault, which is locked.
            VolumeNotFoundError: There is none in clear.
        """
        self._require(name)
        return self._disks.status(name)

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Look whether one can be used. Raises as :meth:`get`, and if it is damaged."""
        self._require(name)
        with self._locks.volume(name):
            return self._disks.activate(name)

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """See that nobody has one open. Raises as :meth:`get`, and if somebody has."""
        self._require(name)
        with self._locks.volume(name):
            return self._disks.deactivate(name)

    def remove(self, name: VolumeName, *, force: bool = False) -> bool:
        """Remove one with its data. Raises as :meth:`get`, and if it is in use and not forced."""
        self._require(name)
        with self._locks.volume(name):
            return self._disks.remove(name, force=force)

    def _require(self, name: VolumeName) -> None:
        if not is_disk(self._layout.disk(name, clear=True)):
            self._check_open()
            raise VolumeNotFoundError(
                f"there is no volume {name} in clear; 'cas volume ls --clear' lists those that are",
                name=name,
            )
