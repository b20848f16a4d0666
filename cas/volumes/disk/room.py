"""The room of disks that share blocks with states of theirs."""

__all__ = ["bytes_alone", "snapshot_bytes"]

from pathlib import Path

from cas.fsops.extents import shared_bytes
from cas.fsops.trees import allocated_bytes
from cas.model.layout import DiskPaths
from cas.volumes.disk.histories import read_history


def bytes_alone(path: Path) -> int:
    """Bytes that the file system has given a file and no other."""
    return max(0, allocated_bytes(path) - shared_bytes(path))


def snapshot_bytes(paths: DiskPaths) -> int:
    """Bytes that the copies of a disk do not share with it or with each other."""
    copies = [paths.snapshot_copy(each.number) for each in read_history(paths).snapshots]
    return sum(bytes_alone(path) for path in copies if path.is_file())
