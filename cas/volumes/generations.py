"""The generations of a volume before the one that is made: what they take, and their going."""

__all__ = ["Generations"]

from collections.abc import Sequence

from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.store.sentinel import Sentinel
from cas.volumes.kinds import VolumeKinds
from cas.volumes.scan import LeftoverKind, iter_leftovers


class Generations:
    """Earlier generations of volumes.

    Args:
        backing: The store.
        leasing: Tells which leases are nobody's any more.
        kinds: Of its volumes.
    """

    def __init__(self, backing: Backing, leasing: Leasing, kinds: VolumeKinds) -> None:
        self._backing = backing
        self._leasing = leasing
        self._kinds = kinds
        self._sentinel = Sentinel(backing)

    def before(self, name: VolumeName) -> list[VolumeName]:
        """Give those that stand, and those whose removal was interrupted, sorted."""
        removing = (
            each.name
            for each in iter_leftovers(self._backing.layout)
            if each.kind is LeftoverKind.REMOVING
        )
        standing = (each for kind in self._kinds.all for each in kind.names())
        return sorted(
            each
            for each in {*standing, *removing}
            if each.uuid == name.uuid and each.generation < name.generation
        )

    def settled(self, names: Sequence[VolumeName]) -> list[VolumeName]:
        """Finish interrupted removals, and give those that stand; the caller holds their locks.

        All room that whoever was killed has left in use is back then: of a snapshot that is
        removed and not collected, and of a layer half unpacked, which a lease holds.

        Raises:
            InUseError: Something is mounted in what is left of one.
        """
        for each in names:
            self._kinds.removal.finish(each)
            self._kinds.disk_removal.finish(each)
        self._leasing.reap()
        self._backing.leases.collect_garbage()
        return [each for each in names if any(kind.exists(each) for kind in self._kinds.all)]

    def size(self, name: VolumeName) -> int:
        """Give the bytes that come back with one, its snapshots included."""
        usage = self._kinds.of(name).usage(name)
        return usage.own_bytes + usage.snapshot_bytes

    def remove(self, names: Sequence[VolumeName]) -> None:
        """Remove them and give their room back; idempotent; the caller holds their locks.

        Raises:
            InUseError: One is in use; none is removed.
        """
        if not names:
            return
        self._sentinel.require()
        standing = {each: kind for each in names for kind in self._kinds.all if kind.exists(each)}
        for each, kind in standing.items():
            kind.deactivate(each)
        for each, kind in standing.items():
            kind.remove(each, force=False)
        self._backing.leases.collect_garbage()
