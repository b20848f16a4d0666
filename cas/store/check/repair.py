"""Puts right what a check found, the smallest repair for each; says what cannot be put right.

Nothing that an image, a volume or a lease needs is removed, bad content apart: that is moved to the
quarantine, since a wrong file under a right name would be taken for the content by the next import.
Every finding is looked at again under its lock before anything is changed. Idempotent.
"""

__all__ = ["Repair", "Repaired"]

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cas.errors import CasError, SnapshotNotFoundError
from cas.fsops.durable import make_directory, rename_aside
from cas.fsops.trees import remove_tree
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import DURABLE
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import LeaseID
from cas.store.backing import Backing
from cas.store.check.findings import Finding, Problem
from cas.store.check.ingest_remains import has_name
from cas.store.check.rebuild import Rebuild
from cas.store.check.repair_blob import BlobRepair
from cas.store.image.images import Images
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.prune.collection import collect_files
from cas.store.sentinel import Sentinel

_log = logging.getLogger(__name__)

_DIGEST_IN_NAME = re.compile(r"[0-9a-f]{64}")
_DIRECTORY_MODE = 0o700
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a finding.

    Args:
        finding: As the check reported it.
        done: Whether it is put right.
        message: What was done, or why it could not be.
    """

    finding: Finding
    done: bool
    message: str


class Repair:
    """Repairs one store.

    Args:
        backing: The store.
        images: Its images.
        unpack: Makes layers again.
        recover: Finishes or undoes what killed operations on volumes left.
    """

    def __init__(
        self, backing: Backing, *, images: Images, unpack: Unpack, recover: Callable[[], object]
    ) -> None:
        self._backing = backing
        self._images = images
        self._unpack = unpack
        self._recover = recover
        self._locks = Locks(backing.layout)
        self._leasing = Leasing(backing)
        self._blobs = BlobRepair(backing, self._locks)

    def repair(
        self,
        findings: Iterable[Finding],
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Iterator[Repaired]:
        """Repair what can be repaired, one after the other, and yield what became of each.

        One that fails does not keep the others back. Check again afterwards: repair of one thing
        may bring another to light, such as the image that a bad blob belonged to.

        Args:
            findings: Of a check; consumed before anything is changed.
            cancel: Stops between two repairs.
            progress: Told of bytes that are read.

        Raises:
            InterruptedOperationError: ``cancel`` was set.
            VaultLockedError: The vault is locked.
            StoreMetadataLostError: containerd's database was emptied since the check.
        """
        listed = list(findings)
        self._backing.check_writable()
        cancel = cancel or Cancellation()
        if any(finding.problem is Problem.METADATA_LOST for finding in listed):
            yield from self._rebuild(listed, cancel, progress)
            return
        Sentinel(self._backing).require()
        if any(finding.problem in _RECOVERED for finding in listed):
            self._leasing.reap()
            self._recover()
        for finding in listed:
            cancel.check()
            if finding.problem is not Problem.FILE_WITHOUT_RECORD:
                yield self._attempt(finding, cancel, progress)
        if any(finding.fixable for finding in listed):
            collect_files(self._backing)
        for finding in listed:
            if finding.problem is Problem.FILE_WITHOUT_RECORD:
                yield self._attempt(finding, cancel, progress)

    def _rebuild(
        self, findings: Iterable[Finding], cancel: Cancellation, progress: Progress
    ) -> Iterator[Repaired]:
        rebuild = Rebuild(self._backing, self._images.platform, self._locks, self._leasing)
        for finding in findings:
            if finding.problem is Problem.METADATA_LOST:
                try:
                    yield Repaired(finding, done=True, message=rebuild.run(cancel, progress))
                except CasError as error:
                    yield Repaired(finding, done=False, message=error.message)

    def _attempt(self, finding: Finding, cancel: Cancellation, progress: Progress) -> Repaired:
        if not finding.fixable:
            return Repaired(finding, done=False, message=f"cannot be repaired: {finding.advice}")
        try:
            done, message = self._fix(finding, cancel, progress)
        except CasError as error:
            cancel.check()
            _log.warning("repair failed object=%s error=%s", finding.object, error)
            return Repaired(finding, done=False, message=error.message)
        _log.info("repair problem=%s object=%s done=%s", finding.problem, finding.object, done)
        return Repaired(finding, done=done, message=message)

    def _fix(self, finding: Finding, cancel: Cancellation, progress: Progress) -> tuple[bool, str]:
        if finding.problem in _BAD_BLOBS:
            return self._blobs.fix(Digest.parse(finding.object), cancel, progress)
        match finding.problem:
            case Problem.IMAGE_LABELS:
                return self._set_labels(finding)
            case Problem.IMAGE_NAME:
                with self._locks.image(finding.object, timeout_seconds=_LOCK_SECONDS):
                    self._backing.images.delete(finding.object)
                return True, "the name is removed"
            case Problem.LAYER_NOT_DURABLE:
                return self._make_durable(finding, cancel, progress)
            case Problem.LEASE:
                self._backing.leases.delete(LeaseID(finding.object))
                return True, "removed"
            case Problem.INGEST:
                with self._nobody_ingests(finding.object):
                    self._backing.content.abort(finding.object)
                return True, "removed with what was written"
            case _:
                return self._remove_file(finding)

    def _remove_file(self, finding: Finding) -> tuple[bool, str]:
        match finding.problem:
            case Problem.FOREIGN_FILE:
                return self._set_aside(Path(finding.object))
            case Problem.STAGED_FILE:
                with self._nobody_ingests(finding.object):
                    remove_tree(Path(finding.object))
                return True, "removed"
            case Problem.INGEST_REMAINS:
                if has_name(Path(finding.object)):
                    return True, "left alone, somebody writes there again"
                remove_tree(Path(finding.object))
                return True, "removed"
            case Problem.FILE_WITHOUT_RECORD:
                return self._is_collected(Digest.parse(finding.object))
            case Problem.EXTRACTION:
                gone = not self._has_snapshot(finding.object)
            case _:
                gone = not os.path.lexists(finding.object)
        return gone, "finished or undone" if gone else "somebody works on it; try again later"

    def _nobody_ingests(self, name: str) -> AbstractContextManager[object]:
        """Hold the lock of the blob that a ref or a staged file is named after, if it is.

        Somebody may have resumed it since the check; then the lock is not to be had.
        """
        found = _DIGEST_IN_NAME.search(name)
        if found is None:
            return nullcontext()
        return self._locks.blob(Digest(found[0]), timeout_seconds=_LOCK_SECONDS)

    def _set_labels(self, finding: Finding) -> tuple[bool, str]:
        for name in finding.images:
            record = self._backing.images.get(name)
            self._images.create(record.name, record.target)
        return bool(finding.images), "labels set from the documents"

    def _make_durable(
        self, finding: Finding, cancel: Cancellation, progress: Progress
    ) -> tuple[bool, str]:
        for name in finding.images:
            with self._leasing.hold("repair") as lease:
                resolved = self._images.resolve(name)
                self._unpack.unpack(resolved, lease, cancel=cancel, progress=progress)
        try:
            durable = DURABLE in self._backing.snapshots.stat(finding.object).labels
        except SnapshotNotFoundError:
            durable = True
        if durable:
            return True, "synced, or unpacked again"
        users = ", ".join(finding.volumes) or "another client's snapshot"
        return False, f"{users} stands on it; remove that first, then check again"

    def _set_aside(self, path: Path) -> tuple[bool, str]:
        quarantine = self._backing.layout.quarantine
        make_directory(quarantine, mode=_DIRECTORY_MODE, parents=True)
        aside = quarantine / f"foreign.{secrets.token_hex(8)}"
        rename_aside(path, aside)
        return True, f"moved to {str(aside)!r}"

    def _is_collected(self, digest: Digest) -> tuple[bool, str]:
        directory = self._backing.blobs_directory
        if directory is None or not os.path.lexists(directory / digest.hex):
            return True, "removed"
        return False, "containerd did not remove it; see its log"

    def _has_snapshot(self, key: str) -> bool:
        try:
            self._backing.snapshots.stat(key)
        except SnapshotNotFoundError:
            return False
        return True


_BAD_BLOBS = frozenset(
    {
        Problem.BLOB_CONTENT,
        Problem.BLOB_FILE_MISSING,
        Problem.BLOB_FILE_UNSAFE,
        Problem.BLOB_SIZE,
        Problem.BLOB_UNREADABLE,
    }
)
_RECOVERED = frozenset({Problem.EXTRACTION, Problem.LEASE, Problem.UNPACK, Problem.VOLUME_LEFTOVER})
