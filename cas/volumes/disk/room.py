"""The room of disks that share blocks with states of theirs."""

__all__ = ["bytes_alone", "bytes_alone_and_shared", "snapshot_bytes"]

from pathlib import Path

from cas.fsops.extents import shared_bytes
from cas.fsops.trees import allocated_bytes
from cas.model.layout import DiskPaths
from cas.volumes.disk.histories import read_history


def bytes_alone(path: Path) -> int:
    """Bytes that the file system has given a file and no other; none of a file that is gone."""
    return bytes_alone_and_shared(path)[0]


def bytes_alone_and_shared(path: Path) -> tuple[int, int]:
    """Give :func:`bytes_alone`, and the bytes that others have, too."""
    shared = shared_bytes(path)
    return max(0, allocated_bytes(path) - shared), shared  # somebody may write between both looks


def snapshot_bytes(paths: DiskPaths) -> int:
    """Bytes that the copies of a disk do not share with it or with each other."""
    copies = [paths.snapshot_copy(each.number) for each in read_history(paths).snapshots]
    return sum(bytes_alone(path) for path in copies if path.is_file())
