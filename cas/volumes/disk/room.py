"""The room of disks that share blocks with states of theirs."""

__all__ = ["bytes_alone", "require_room_to_change", "snapshot_bytes"]

from pathlib import Path

from cas.errors import NoSpaceError
from cas.fsops.extents import shared_bytes
from cas.fsops.trees import allocated_bytes
from cas.model.layout import DiskPaths
from cas.store.backing import Backing
from cas.store.space import Space
from cas.volumes.disk.histories import read_history
from cas.volumes.disk.looking import pending_growth
from cas.volumes.status import DiskStatus


def bytes_alone(path: Path) -> int:
    """Bytes that the file system has given a file and no other."""
    return max(0, allocated_bytes(path) - shared_bytes(path))


def snapshot_bytes(paths: DiskPaths) -> int:
    """Bytes that the copies of a disk do not share with it or with each other."""
    copies = [paths.snapshot_copy(each.number) for each in read_history(paths).snapshots]
    return sum(bytes_alone(path) for path in copies if path.is_file())


def require_room_to_change(backing: Backing, disk: DiskStatus) -> None:
    """Return if a disk, all of which a snapshot has too, can be written to its end all the same.

    Always, where disks may be thin.

    Raises:
        NoSpaceError: It cannot; the other disks count as well.
    """
    limits, directory = backing.limits, disk.path.parent
    if limits.thin_disks:
        return
    others = pending_growth(backing.layout, limits, directory, besides=[disk.path])
    missing = others + disk.virtual_size - Space(backing).available(at=directory)
    if missing > 0:
        raise NoSpaceError(
            f"disk volume {disk.path.name} may come to take {disk.virtual_size} bytes beside a "
            f"snapshot of it, and the other disks {others} more than they do: {missing} more than "
            f"{str(directory)!r} can give; make room, or allow thin_disks under [limits]",
            path=directory,
            needed=disk.virtual_size,
            missing=missing,
        )
