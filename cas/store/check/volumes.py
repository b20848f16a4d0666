"""Is every volume complete, and nothing in its place that is none? Looks only.

What is in a volume's directory is known to the layer above, which hands its judgement down as
:class:`VolumeJudgement`; here it is joined with what containerd knows.
"""

__all__ = [
    "Judge",
    "SuffixedVolume",
    "SuffixedVolumes",
    "VolumeJudgement",
    "check_volumes",
]

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cas.errors import InvalidNameError, LockTimeoutError, SnapshotNotFoundError
from cas.fsops.durable import is_temporary
from cas.fsops.mounts import mounts_below
from cas.fsops.translation import translated
from cas.model.cancellation import while_wanted
from cas.model.layout import Layout
from cas.model.volume_history import top_of
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.account.inventory import Inventory
from cas.store.backing import Backing
from cas.store.check.disk_snapshots import DiskSnapshotProblems, disk_snapshot_finding
from cas.store.check.findings import Finding, Problem, Severity
from cas.store.locking import Locks


class VolumeJudgement(Protocol):
    """What the volumes layer says of one volume."""

    @property
    def name(self) -> VolumeName:
        """Which volume."""

    @property
    def problem(self) -> str | None:
        """Why it cannot be used; None if it can."""


class SuffixedVolume(Protocol):
    """A volume that older software has made, with its format in its name."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def reason(self) -> str:
        """Which volume it seems to be."""


Judge = Callable[[], Iterable[VolumeJudgement]]
"""Looks at every volume."""
SuffixedVolumes = Callable[[], Iterable[SuffixedVolume]]
"""Lists what older software has made."""


def check_volumes(
    backing: Backing,
    inventory: Inventory,
    locks: Locks,
    judge: Judge,
    suffixed: SuffixedVolumes,
    disk_snapshots: DiskSnapshotProblems,
) -> Iterator[Finding]:
    """Look at volumes, at what was left of making and removing them, at older ones, and at mounts.

    Raises:
        UnavailableError: containerd does not answer.
        StorageError: A directory cannot be read.
        VaultLockedError: The vault was locked meanwhile.
    """
    damaged = set()
    for judged in while_wanted(judge()):
        if judged.problem is not None:
            damaged.add(str(judged.name))
            yield _damaged(str(judged.name), judged.problem)
    yield from _snapshots(backing, inventory, locks, damaged)
    yield from map(disk_snapshot_finding, while_wanted(disk_snapshots()))
    backing.check_open()  # a disk whose key is gone is a finding, a vault whose key is gone is not
    yield from _leftovers(backing, locks)
    yield from map(_older, while_wanted(suffixed()))
    yield from _mounts(backing)


def _damaged(name: str, problem: str) -> Finding:
    return Finding(
        Problem.VOLUME,
        invariant=5,
        severity=Severity.ERROR,
        object=name,
        message=problem,
        advice=f"put that right, or 'cas volume rm --force {name}' and prepare it again, under the "
        "next generation",
        fixable=False,
        volumes=(name,),
    )


def _snapshots(
    backing: Backing, inventory: Inventory, locks: Locks, damaged: set[str]
) -> Iterator[Finding]:
    for record in while_wanted(inventory.volumes.values()):
        name = str(record.name)
        if name in damaged or record.snapshotter != backing.snapshotter:
            continue
        if _problem(backing, record) is None:
            continue
        with suppress(LockTimeoutError), locks.volume(record.name, timeout_seconds=0):
            # Nobody works on it any more: what is missing now is lost.
            current = next((each for each in backing.volumes() if each.name == record.name), None)
            problem = None if current is None else _problem(backing, current)
            if problem is not None:
                yield _lost(name, f"volume {name} {problem}")


def _problem(backing: Backing, record: VolumeRecord) -> str | None:
    """Say what is wrong with the snapshots that a volume is made of."""
    try:
        parent = backing.snapshots.stat(record.snapshot_key).parent
    except SnapshotNotFoundError:
        return f"has lost its snapshot {record.snapshot_key!r}"
    expected = top_of(record)
    if parent != expected and not (record.converted and not expected):
        return f"stands on snapshot {parent!r}, expected {expected!r}"
    for layer in () if record.history is None else record.history.layers:
        if not _exists(backing, layer.key):
            return f"has lost the layer {layer.key!r} of its snapshots"
    return f"has lost its layers {parent}" if parent and not _exists(backing, parent) else None


def _exists(backing: Backing, key: str) -> bool:
    try:
        backing.snapshots.stat(key)
    except SnapshotNotFoundError:
        return False
    return True


def _lost(name: str, message: str) -> Finding:
    return Finding(
        Problem.VOLUME_SNAPSHOT,
        invariant=5,
        severity=Severity.ERROR,
        object=name,
        message=message,
        advice="what was written into it is lost; remove it and prepare it again",
        fixable=False,
        volumes=(name,),
    )


def _leftovers(backing: Backing, locks: Locks) -> Iterator[Finding]:
    layout = backing.layout
    for clear in (False, True):
        directory, records = layout.disk_directory(clear=clear), layout.disk_records(clear=clear)
        for path in _entries(directory):
            is_hidden = path.name.startswith(".") and path != records
            if is_hidden and not _is_worked_on(locks, _hidden_stem(path), path.exists):
                yield _leftover(path, "was left by an interrupted prepare or removal")
        for path in _entries(records):
            if is_temporary(path.name):
                continue  # of a record that is just written, or recovery's
            name = path.stem

            def is_of_nothing(path: Path = path, disk: Path = directory / name) -> bool:
                return path.exists() and not disk.exists()

            if is_of_nothing() and not _is_worked_on(locks, name, is_of_nothing):
                yield _leftover(path, "is the record of a disk that does not exist")


def _entries(directory: Path) -> list[Path]:
    with translated("list", directory):
        try:
            return sorted(directory.iterdir())
        except FileNotFoundError:
            return []


def _hidden_stem(path: Path) -> str:
    return path.name.removeprefix(".").rpartition(".")[0]


def _leftover(path: Path, what: str) -> Finding:
    return Finding(
        Problem.VOLUME_LEFTOVER,
        invariant=7,
        severity=Severity.WARNING,
        object=str(path),
        message=f"{str(path)!r} {what}",
        advice="'cas check --fix' finishes or undoes it",
        fixable=True,
    )


def _older(volume: SuffixedVolume) -> Finding:
    return Finding(
        Problem.SUFFIXED_VOLUME,
        invariant=9,
        severity=Severity.WARNING,
        object=str(volume.path),
        message=f"{str(volume.path)!r} is {volume.reason}; no volume of cas, and left alone",
        advice="'cas upgrade plan' tells whether --adopt-suffixed can give it its name of now",
        fixable=False,
    )


def _is_worked_on(locks: Locks, name: str, is_there: Callable[[], bool]) -> bool:
    """Whether somebody holds the lock of the volume that an entry belongs to, or it is gone."""
    try:
        with locks.volume(VolumeName.parse(name), timeout_seconds=0):
            return not is_there()
    except InvalidNameError:
        return False
    except LockTimeoutError:
        return True


def _mounts(backing: Backing) -> Iterator[Finding]:
    layout = backing.layout
    if not layout.volumes.is_dir():
        return
    resolved = Layout(layout.persist.resolve())
    for point in mounts_below(layout.volumes):
        inside = point.path.relative_to(resolved.volumes)
        try:
            name = VolumeName.parse(inside.parts[0])
        except InvalidNameError:
            name = None
        if name is None or not layout.volume(name).is_dir():
            yield Finding(
                Problem.FOREIGN_MOUNT,
                invariant=7,
                severity=Severity.WARNING,
                object=str(point.path),
                message=f"{str(point.path)!r} is a mount point and belongs to no volume",
                advice="see what uses it, and unmount it",
                fixable=False,
            )
