"""Findings of what is wrong with the snapshots of disks, which the layer above has looked at."""

__all__ = ["DiskSnapshotProblem", "DiskSnapshotProblems", "disk_snapshot_finding"]

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from cas.model.volume_name import VolumeName
from cas.store.check.findings import Finding, Problem, Severity


class DiskSnapshotProblem(Protocol):
    """What is wrong with the snapshots of a disk volume that can be used."""

    @property
    def name(self) -> VolumeName:
        """Which volume."""

    @property
    def lost(self) -> str | None:
        """The snapshot whose copy of the disk is gone."""

    @property
    def stray(self) -> Path | None:
        """A file among those of the snapshots that belongs to none."""

    @property
    def unreadable(self) -> str | None:
        """Why they could not be looked at; with none of the three a change was interrupted."""


DiskSnapshotProblems = Callable[[], Iterable[DiskSnapshotProblem]]
"""Looks at the snapshots of every disk."""


def disk_snapshot_finding(problem: DiskSnapshotProblem) -> Finding:
    """Say how bad it is, and what to do."""
    name = str(problem.name)
    if problem.unreadable is not None:
        return _harm(
            name,
            f"the snapshots of volume {name} cannot be looked at: {problem.unreadable}",
            "see to what failed, and check again",
        )
    if problem.lost is not None:
        return _harm(
            name,
            f"snapshot {problem.lost!r} of volume {name} has lost its copy of the disk",
            f"'cas volume snapshot rm {name} --snapshot {problem.lost}'; the volume is unharmed",
        )
    return _left_over(name) if problem.stray is None else _stray(name, problem.stray)


def _harm(name: str, message: str, advice: str) -> Finding:
    return Finding(
        Problem.VOLUME_SNAPSHOT,
        invariant=5,
        severity=Severity.ERROR,
        object=name,
        message=message,
        advice=advice,
        fixable=False,
        volumes=(name,),
    )


def _left_over(name: str) -> Finding:
    return Finding(
        Problem.VOLUME_LEFTOVER,
        invariant=7,
        severity=Severity.WARNING,
        object=name,
        message=f"a change of the snapshots of volume {name} was interrupted",
        advice="'cas check --fix' finishes or undoes it",
        fixable=True,
        volumes=(name,),
    )


def _stray(name: str, path: Path) -> Finding:
    return Finding(
        Problem.FOREIGN_FILE,
        invariant=7,
        severity=Severity.WARNING,
        object=str(path),
        message=f"{str(path)!r} lies among the snapshots of volume {name} and belongs to none",
        advice="see what it is, and remove it; it goes with the last snapshot of the volume",
        fixable=False,
        volumes=(name,),
    )
