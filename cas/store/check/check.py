"""Verifies the invariants of a store, and hands what it finds to repair.

Looks only (but for the cursor of reading). Whatever it is about to report it looks at a second
time, since the store goes on working meanwhile: a healthy store has no findings.
"""

__all__ = ["Check", "CheckRun"]

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Self

from cas.model.cancellation import Cancellation
from cas.model.descriptor import Platform
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.account.inventory import OtherContent, take_inventory
from cas.store.backing import Backing
from cas.store.check.blobs import check_blob_files
from cas.store.check.data import DataCheck, ScrubState
from cas.store.check.disk_snapshots import DiskSnapshotProblem, DiskSnapshotProblems
from cas.store.check.findings import Finding, Hits, Problem, Severity
from cas.store.check.images import check_images, check_layers
from cas.store.check.leftovers import check_leftovers
from cas.store.check.volumes import (
    Judge,
    SuffixedVolume,
    SuffixedVolumes,
    VolumeJudgement,
    check_volumes,
)
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel, SentinelState


def _no_volumes() -> Iterable[VolumeJudgement]:
    return ()


def _no_problems() -> Iterable[DiskSnapshotProblem]:
    return ()


def _no_suffixed() -> Iterable[SuffixedVolume]:
    return ()


class CheckRun:
    """The findings of one check, as they are made.

    Attributes:
        scrub: How far reading came, known when the run has ended; None if nothing was to be read.
    """

    def __init__(self, findings: Callable[["CheckRun"], Iterator[Finding]]) -> None:
        self.scrub: ScrubState | None = None
        self._findings = findings(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Finding:
        return next(self._findings)


class Check:
    """Checks one store.

    Args:
        backing: The store.
        platform: Of this machine: its part of an image must not be there by halves.
        judge: Looks at every volume; see :class:`VolumeJudgement`.
        suffixed: Lists volumes that older software has made; see :class:`SuffixedVolume`.
        disk_snapshots: Looks at those of disks; see :class:`DiskSnapshotProblem`.
        others: Content of the other namespaces of this containerd.
    """

    def __init__(
        self,
        backing: Backing,
        *,
        platform: Platform,
        judge: Judge = _no_volumes,
        suffixed: SuffixedVolumes = _no_suffixed,
        disk_snapshots: DiskSnapshotProblems = _no_problems,
        others: OtherContent = tuple,
    ) -> None:
        self._backing = backing
        self._platform = platform
        self._judge = judge
        self._suffixed = suffixed
        self._disk_snapshots = disk_snapshots
        self._others = others
        self._locks = Locks(backing.layout)

    def run(
        self,
        *,
        read_data: bool = False,
        max_duration: timedelta | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> CheckRun:
        """Check everything and yield what is wrong; none when the store is healthy.

        Cheap unless ``read_data`` is given: records, inodes and documents. Nothing is looked at
        before the first finding is asked for; any number of runs may go on at once.

        Args:
            read_data: Read and hash every blob, too.
            max_duration: Of reading; the next run goes on where this one stopped.
            cancel: Stops between two chunks.
            progress: Told of bytes that are read.

        Raises:
            UnavailableError: containerd does not answer.
            StorageError: A directory cannot be read.
            InterruptedOperationError: ``cancel`` was set.
        """
        return CheckRun(
            partial(
                self._findings,
                read_data=read_data,
                max_duration=max_duration,
                cancel=cancel,
                progress=progress,
            )
        )

    def _findings(
        self,
        run: CheckRun,
        *,
        read_data: bool,
        max_duration: timedelta | None,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> Iterator[Finding]:
        backing = self._backing
        if Sentinel(backing).state() is SentinelState.LOST:
            # Nothing else can be judged by a database that knows nothing.
            yield _metadata_lost(backing)
            return
        now = backing.clock()
        inventory = take_inventory(backing, now=now, others=self._others)
        hits = Hits(inventory.graph)
        yield from check_blob_files(backing, inventory.graph, hits)
        yield from check_images(backing, inventory, self._platform, hits)
        yield from check_layers(inventory, hits)
        yield from check_volumes(
            backing, inventory, self._locks, self._judge, self._suffixed, self._disk_snapshots
        )
        yield from check_leftovers(backing, inventory, self._locks, now)
        if read_data:
            data = DataCheck(backing, inventory.graph, hits, max_duration=max_duration)
            try:
                yield from data.run(cancel or Cancellation(), progress)
            finally:
                run.scrub = data.state


def _metadata_lost(backing: Backing) -> Finding:
    return Finding(
        Problem.METADATA_LOST,
        invariant=2,
        severity=Severity.ERROR,
        object=backing.namespace,
        message=f"containerd's database knows nothing of the store in namespace "
        f"{backing.namespace!r} although its files are there",
        advice="'cas check --fix' rebuilds it from the blobs on disk; until then nothing is "
        "deleted",
        fixable=True,
        volumes=tuple(sorted(str(record.name) for record in backing.volumes())),
    )
