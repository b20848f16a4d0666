"""Does what a plan of :mod:`cas.store.prune.plan` says, and looks whether it came true."""

__all__ = ["PlanExecution", "Skipped"]

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cas.errors import (
    BlobNotFoundError,
    ImageNotFoundError,
    LeaseNotFoundError,
    LockTimeoutError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.progress import Progress
from cas.model.records import ImageRecord, LeaseID
from cas.store.account.files import scan_blob_files
from cas.store.account.graph import Kind, references
from cas.store.account.inventory import ABANDONED_AFTER
from cas.store.backing import Backing
from cas.store.content.pins import UNPINNED
from cas.store.leasing import is_abandoned
from cas.store.locking import Locks
from cas.store.prune.plan import Action, PlannedObject, PrunePlan
from cas.store.transfers import iter_transfer_files, remove_if_idle
from cas.store.workers import WorkerPool

_log = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0
_WORKERS = 4
_ACTION = "prune"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A planned object that stays.

    Args:
        planned: As it was planned.
        reason: Why it stays.
    """

    planned: PlannedObject
    reason: str


class PlanExecution:
    """One run of one plan.

    Args:
        backing: The store.
        locks: Its locks.
        plan: To be done.
    """

    def __init__(self, backing: Backing, locks: Locks, plan: PrunePlan) -> None:
        self._backing = backing
        self._locks = locks
        self._objects = plan.objects
        self._made = plan.made
        self._kept: dict[tuple[str, str], str] = {}

    def drop_references(self, cancel: Cancellation, progress: Progress) -> None:
        """Remove names, leases and abandoned writes, and unpin blobs; each after a second look.

        Idempotent: what is gone already is passed by.

        Raises:
            InterruptedOperationError: ``cancel`` was set; what was dropped stays dropped.
            UnavailableError: containerd does not answer.
        """
        steps: tuple[tuple[str, Action, Callable[[PlannedObject], str]], ...] = (
            ("lease", Action.REMOVE, self._remove_lease),
            ("ingest", Action.REMOVE, self._abort_ingest()),
            ("download", Action.REMOVE, self._remove_download()),
            ("image", Action.REMOVE, self._remove_image),
        )
        for kind, action, remove in steps:
            for planned in self._of(kind, action):
                cancel.check()
                self._keep(planned, remove(planned))
                progress.advance(_ACTION, kind, 1)
        self._unpin(cancel, progress)

    def outcome(self) -> Iterator[PlannedObject | Skipped]:
        """Look at every planned object and say whether it is gone; reads every record once."""
        left = self._what_is_left()
        for planned in self._objects:
            reason = self._kept.get((planned.kind, planned.name)) or left(planned)
            yield Skipped(planned, reason) if reason else planned

    def _of(self, kind: str, action: Action) -> Iterator[PlannedObject]:
        return (each for each in self._objects if each.kind == kind and each.action is action)

    def _keep(self, planned: PlannedObject, reason: str) -> None:
        if reason:
            self._kept[planned.kind, planned.name] = reason
            _log.info("prune leaves kind=%s name=%s", planned.kind, planned.name)

    def _remove_lease(self, planned: PlannedObject) -> str:
        self._backing.leases.delete(LeaseID(planned.name))
        return ""

    def _remove_download(self) -> Callable[[PlannedObject], str]:
        layout = self._backing.layout
        # A plan may come from elsewhere: its names are looked up and never used as paths.
        there = {str(file.path): file.path for file in iter_transfer_files(layout)}

        def remove(planned: PlannedObject) -> str:
            path = there.get(planned.name)
            if path is None:
                return ""
            try:
                stays = remove_if_idle(layout, path, lambda file: file.updated < self._made)
            except LockTimeoutError:
                return "a transfer of its digest is under way"
            return "" if stays is None else "somebody went on with it since the plan was made"

        return remove

    def _abort_ingest(self) -> Callable[[PlannedObject], str]:
        now = self._backing.clock()
        changed = {ingest.ref: ingest.updated for ingest in self._backing.content.iter_ingests()}

        def abort(planned: PlannedObject) -> str:
            if now - changed.get(planned.name, datetime.min.replace(tzinfo=now.tzinfo)) < (
                ABANDONED_AFTER
            ):
                return "somebody went on with it since the plan was made"
            self._backing.content.abort(planned.name)
            return ""

        return abort

    def _remove_image(self, planned: PlannedObject) -> str:
        try:
            with self._locks.image(planned.name, timeout_seconds=_LOCK_SECONDS):
                record = self._backing.images.get(planned.name)
                reason = self._in_use(record, planned.image)
                if not reason:
                    self._backing.images.delete(planned.name)
                    _log.info("image pruned image=%s", planned.name)
                return reason
        except ImageNotFoundError:
            return ""
        except LockTimeoutError:
            return "somebody is changing it"

    def _in_use(self, record: ImageRecord, planned: ImageRecord | None) -> str:
        if planned is None or (record.target, record.updated) != (planned.target, planned.updated):
            return "it was used or changed since the plan was made"
        for volume in self._backing.volumes():
            if volume.image == record.name or volume.root_digest == record.target.digest:
                return f"volume {volume.name} has been prepared from it since the plan was made"
        held = self._leased_blobs()
        if held and not held.isdisjoint(self._documents(record)):
            return "running work holds a lease on it"
        return ""

    def _documents(self, record: ImageRecord) -> set[str]:
        """Give the image's target and what that refers to, where running work pins an image."""
        digest = record.target.digest
        try:
            labels = self._backing.content.info(digest).labels
        except BlobNotFoundError:
            labels = {}
        listed = references(labels, self._backing.snapshotter)
        return {str(digest), *(name for kind, name in listed if kind is Kind.BLOB)}

    def _leased_blobs(self) -> set[str]:
        held: set[str] = set()
        for lease in self._backing.leases.iter_leases():
            if is_abandoned(lease):
                continue
            try:
                resources = list(self._backing.leases.iter_resources(lease.id))
            except LeaseNotFoundError:
                continue
            held.update(each.id for each in resources if each.type == "content")
        return held

    def _unpin(self, cancel: Cancellation, progress: Progress) -> None:
        """Drop pins; containerd writes one after the other, several workers keep it busy.

        Blobs that share a lock file go together, so that it is locked once for all of them.
        """
        groups: dict[str, list[PlannedObject]] = {}
        for planned in self._of("blob", Action.UNPIN):
            digest = Digest.parse(planned.name)
            lock = str(self._backing.layout.lock("blob", digest.hex))
            groups.setdefault(lock, []).append(planned)

        def unpin(group: list[PlannedObject]) -> list[tuple[PlannedObject, str]]:
            return list(self._unpin_group(group, cancel, progress))

        with WorkerPool(_WORKERS, thread_name_prefix="cas-prune") as workers:
            try:
                for outcomes in workers.map(unpin, groups.values()):
                    for planned, reason in outcomes:
                        self._keep(planned, reason)
            except BaseException:
                workers.shutdown(cancel_futures=True)
                raise

    def _unpin_group(
        self, group: list[PlannedObject], cancel: Cancellation, progress: Progress
    ) -> Iterator[tuple[PlannedObject, str]]:
        """Drop pins under the lock of all of them; gives each with the reason why it stays."""
        first = Digest.parse(group[0].name)
        try:
            with self._locks.blob(first, timeout_seconds=_LOCK_SECONDS):
                for planned in group:
                    cancel.check()
                    yield planned, self._unpin_untouched(Digest.parse(planned.name))
                    progress.advance(_ACTION, "blob", 1)
        except LockTimeoutError:
            yield from ((planned, "somebody is ingesting it") for planned in group)

    def _unpin_untouched(self, digest: Digest) -> str:
        """Drop one pin, unless somebody asked for the blob since the plan.

        An ingest that finds the blob touches its record under the blob's lock, and whoever changes
        the labels touches it as well.
        """
        content = self._backing.content
        try:
            if content.info(digest).updated > self._made:
                return "it was used or changed since the plan was made"
            content.update_labels(digest, UNPINNED)
        except BlobNotFoundError:
            _log.debug("blob to unpin is gone digest=%s", digest)
        return ""

    def _what_is_left(self) -> Callable[[PlannedObject], str]:
        """Read what exists once, restricted to what was planned to go."""
        backing = self._backing
        names: dict[str, set[str]] = {}
        for planned in self._objects:
            names.setdefault(planned.kind, set()).add(planned.name)

        def present(kind: str, existing: Iterable[str]) -> set[str]:
            wanted = names.get(kind)
            return {name for name in existing if name in wanted} if wanted else set()

        left = {
            "image": present("image", (each.name for each in backing.images.iter_images())),
            "lease": present("lease", (each.id for each in backing.leases.iter_leases())),
            "ingest": present("ingest", (each.ref for each in backing.content.iter_ingests())),
            "snapshot": present(
                "snapshot", (each.name for each in backing.snapshots.iter_snapshots())
            ),
            "blob": present("blob", (str(each.digest) for each in backing.content.iter_blobs())),
        }
        files: set[bytes] = set()
        if backing.blobs_directory is not None:
            files = scan_blob_files(backing.blobs_directory).digests

        def reason(planned: PlannedObject) -> str:
            if planned.name in left.get(planned.kind, ()):
                return "something refers to it by now"
            if planned.size and planned.kind in {"blob", "file"}:
                raw = bytes.fromhex(planned.name.removeprefix("sha256:"))
                if raw in files:
                    return (
                        "containerd did not remove its file; see its log, and run 'cas check --fix'"
                    )
            return ""

        return reason
