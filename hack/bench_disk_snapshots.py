"""Snapshots of disk volumes: the same time whatever a disk holds, against the tools beneath."""

__all__ = ["disk_snapshots"]

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from cas.app import Case
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.volume_name import VolumeName
from hack.bench_setting import MIB, Bench, Row, new_name

_TIMES = 10
_ROOM_BYTES = 4096 * MIB
_CONFINED = "each run of qemu-img is confined by a Python of its own"
_JOURNALLED = "a history of the disk is synced with each step"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Disks of one format, and how a snapshot is made, returned to and removed without cas."""

    format: DiskFormat
    peer: str
    taking: str
    returning: str
    removing: str
    note: str

    @property
    def clear(self) -> bool:
        """Whether they are on the file system that shares extents."""
        return self.format is DiskFormat.RAW


_KINDS = (
    _Kind(
        DiskFormat.QCOW2,
        "qemu-img",
        "qemu-img snapshot -c s {disk}",
        "qemu-img snapshot -a s {disk}",
        "qemu-img snapshot -d s {disk}",
        _CONFINED,
    ),
    _Kind(
        DiskFormat.RAW,
        "cp --reflink",
        "cp --reflink=always {disk} {disk}.s && sync -f {disk}",
        "cp --reflink=always {disk}.s {disk}.new && mv {disk}.new {disk} && sync -f {disk}",
        "rm {disk}.s && sync -f {disk}",
        _JOURNALLED,
    ),
)


class _Disk:
    """A disk volume that holds so many MiB, a file with the same for the peer, and their rows."""

    def __init__(self, case: Case, kind: _Kind, size: int) -> None:
        self._case = case
        self._kind = kind
        self._name = VolumeName.parse(new_name())
        request = DiskRequest(None, size=size * MIB, format=kind.format, clear=kind.clear)
        path = case.volumes.prepare_disk(self._name, request).rootfs
        write = ("qemu-io", "-f", kind.format.value, "-c", f"write -P 7 0 {size}M", str(path))
        subprocess.run(write, stdout=subprocess.DEVNULL, check=True)
        self._copy = path.with_name(f"peer-{size}")
        subprocess.run(["cp", "--sparse=always", path, self._copy], check=True)
        what = f"{kind.format.value} disk of {size} MiB, against {kind.peer}"
        self.rows = [
            Row(f"{action}, {what}", "s", note=kind.note)
            for action in ("snapshot", "rollback", "snapshot removal")
        ]

    def measure(self, number: int) -> None:
        """Take a snapshot, return to it, remove it: cas and its peer in turn."""
        snapshots, name = self._case.volume_snapshots, f"s{number}"
        ours: Sequence[Callable[[], object]] = (
            partial(snapshots.create, [self._name], name),
            partial(snapshots.roll_back, [self._name], name),
            partial(snapshots.remove, self._name, name),
        )
        theirs = (self._kind.taking, self._kind.returning, self._kind.removing)
        for row, work, script in zip(self.rows, ours, theirs, strict=True):
            row.ours.append(_seconds(work))
            row.theirs.append(_seconds(partial(_run, script.format(disk=self._copy))))

    def remove(self) -> None:
        """Leave nothing."""
        self._case.volumes.remove(self._name)
        self._copy.unlink()


def disk_snapshots(bench: Bench) -> Iterator[Row]:
    """Taking one, returning to it, removing it; of little and of much data, in turn."""
    with _sharing_extents(bench), bench.open(bench.namespace()) as case:
        for kind in _KINDS:
            disks = [_Disk(case, kind, size) for size in (1, 1000 // bench.scale)]
            os.sync()
            for number in range(_TIMES):
                for disk in disks:
                    disk.measure(number)
            for disk in disks:
                disk.remove()
                yield from disk.rows


@contextmanager
def _sharing_extents(bench: Bench) -> Iterator[None]:
    """Have an xfs where disks in clear are."""
    image = bench.root / "xfs"
    directory = bench.settings.layout.clear_volumes.parent
    with image.open("wb") as file:
        file.truncate(_ROOM_BYTES)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    try:
        bench.cas("layout", "check", "--fix")
        yield
    finally:
        subprocess.run(["umount", directory], check=True)
        image.unlink()


def _run(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
