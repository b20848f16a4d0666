"""Unpacks several layers at once, with the same result as one after the other.

containerd can unpack a layer only onto a snapshot whose parents are committed. So each layer is
unpacked into a directory outside of all snapshots; in order, each then takes the place of the
empty directory of a snapshot that was prepared on its committed parent. Works for the overlay
snapshotter in a store whose root this process reaches; what is found to be different on the way
ends in ``StagingUnsuitableError``, upon which the caller unpacks layer by layer.
"""

__all__ = ["StagedUnpack"]

import logging
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from cas.errors import InterruptedOperationError
from cas.fsops.durable import exchange, sync_directory, sync_file_system
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes
from cas.model.cancellation import Cancellation, JointCancellation
from cas.model.progress import Progress
from cas.model.records import Mount
from cas.store.backing import Backing
from cas.store.image.resolution import Layer
from cas.store.layers.durability import upper_directory
from cas.store.layers.extraction import Extraction, LayerExtraction
from cas.store.layers.implied_directories import restore_implied_directories
from cas.store.layers.staging import StagedLayer, Staging, StagingUnsuitableError
from cas.store.leasing import Lease
from cas.store.workers import WorkerPool

_LOGGER = logging.getLogger(__name__)

_SNAPSHOTTER = "overlayfs"
_SNAPSHOT_FILES = re.compile(r"/snapshots/\d+/fs\Z")
_ROOT_MODE = 0o755


class StagedUnpack:
    """Unpacks layers side by side.

    Args:
        backing: The store.
        extraction: The steps of unpacking one layer.
        workers: Layers unpacked at once.
    """

    def __init__(self, backing: Backing, extraction: LayerExtraction, *, workers: int) -> None:
        self._backing = backing
        self._extraction = extraction
        self._workers = workers

    def is_suitable(self, layers: Sequence[Layer]) -> bool:
        """Whether it is worth while and, as far as can be told beforehand, possible."""
        blobs, case = self._backing.blobs_directory, self._backing.layout.case
        return (
            min(self._workers, len(layers)) > 1
            and self._backing.snapshotter == _SNAPSHOTTER
            and blobs is not None
            and case in blobs.parents
            # containerd splits options at these.
            and not set(str(case)) & set(":,\\")
        )

    def unpack(
        self,
        layers: Sequence[Layer],
        parent: str,
        lease: Lease,
        *,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        """Make the snapshots of ``layers``, each as soon as those below it are there.

        After failure those that were committed stay; nothing else does.

        Args:
            layers: Successive layers, lowest first.
            parent: The committed snapshot below them, empty if there is none.
            lease: Holds all of it.
            cancel: Stops the work.
            progress: Told about the layers, from several threads.

        Raises:
            StagingUnsuitableError: It cannot be done this way here.
            AlreadyExistsError: Somebody else made one of the snapshots.
            CasError: As :meth:`cas.store.layers.unpack.Unpack.unpack` says.
        """
        stop = JointCancellation(cancel)
        with Staging(self._backing.layout.unpacking) as staging, self._pool(stop) as pool:
            staged = [
                staging.add(layer, number, is_base=not parent and not number)
                for number, layer in enumerate(layers)
            ]
            jobs = [pool.submit(self._unpack, each, lease, stop, progress) for each in staged]
            for ready in _iter_ready(jobs):
                batch = staged[ready.start : ready.stop]
                self._commit(batch, parent, lease)
                parent = str(batch[-1].layer.chain_id)

    @contextmanager
    def _pool(self, stop: Cancellation) -> Iterator[WorkerPool]:
        pool = WorkerPool(self._workers, thread_name_prefix="cas-unpack")
        try:
            yield pool
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _unpack(
        self, staged: StagedLayer, lease: Lease, stop: Cancellation, progress: Progress
    ) -> None:
        stop.check()
        staged.begin()
        self._extraction.apply(
            staged.layer,
            staged.mounts,
            lease,
            sync=False,
            measure=lambda: allocated_bytes(staged.files),
            room=staged.files,
            cancel=stop,
            progress=progress,
        )
        staged.end()

    def _commit(self, batch: Sequence[StagedLayer], parent: str, lease: Lease) -> None:
        """Commit successive layers whose parent is committed; one sync serves them all."""
        with self._extraction.held(batch[0].layer, parent, lease) as extraction:
            below = _lower_directories(extraction.mounts)
            for staged in batch:
                restore_implied_directories(staged.files, below, staged.window)
                below = [staged.files, *below]
            sync_file_system(batch[0].files)
            self._adopt(batch[0], extraction, lease)
        for lower, staged in pairwise(batch):
            parent = str(lower.layer.chain_id)
            with self._extraction.held(staged.layer, parent, lease) as extraction:
                self._adopt(staged, extraction, lease)

    def _adopt(self, staged: StagedLayer, extraction: Extraction, lease: Lease) -> None:
        """Put a layer's synced files into the place of an empty active snapshot; commit it."""
        target = _checked_target(extraction.mounts, staged.files)
        with translated("inspect", target):
            wanted, found = target.stat(), staged.files.stat()
        if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
            raise StagingUnsuitableError(f"{target} does not belong to root")
        exchange(staged.files, target)
        # The directory's own attributes and entries were synced with the rest; its new place is
        # made durable by the exchange.
        sync_directory(target)
        self._extraction.commit(extraction, lease)


def _iter_ready(jobs: Sequence[Future[None]]) -> Iterator[range]:
    """Wait for jobs and yield, in order and without gaps, the positions that are done.

    Raises the first real failure at once, whichever job had it.
    """
    pending, position = set(jobs), 0
    while position < len(jobs):
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        _raise_failure(done)
        start = position
        while position < len(jobs) and jobs[position].done():
            jobs[position].result()
            position += 1
        if position > start:
            yield range(start, position)


def _raise_failure(done: set[Future[None]]) -> None:
    errors = [error for job in done if (error := job.exception()) is not None]
    # Those that were stopped because of another one's failure come second.
    errors.sort(key=lambda error: isinstance(error, InterruptedOperationError))
    if errors:
        raise errors[0]


def _lower_directories(mounts: Sequence[Mount]) -> list[Path]:
    lower = mounts[0].option("lowerdir") if len(mounts) == 1 else None
    return [Path(each) for each in lower.split(":")] if lower else []


def _checked_target(mounts: Sequence[Mount], files: Path) -> Path:
    target = upper_directory(mounts)
    if target is None or _SNAPSHOT_FILES.search(str(target)) is None:
        raise StagingUnsuitableError(f"snapshots are not where they are expected: {mounts}")
    if "userxattr" in mounts[0].options:
        raise StagingUnsuitableError("containerd runs in a user namespace")
    with translated("inspect", target):
        status, is_empty = target.stat(), next(target.iterdir(), None) is None
        same_device = status.st_dev == files.stat().st_dev
    if not is_empty or not same_device or stat.S_IMODE(status.st_mode) != _ROOT_MODE:
        raise StagingUnsuitableError(f"{target} is not an empty directory of the usual mode")
    return target
