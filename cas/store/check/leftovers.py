"""What outlived the operation that made it: leases, writes, files, keys. Looks only."""

__all__ = ["check_leftovers"]

import os
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cas.errors import (
    InvalidNameError,
    LeaseNotFoundError,
    LockTimeoutError,
    SnapshotNotFoundError,
)
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.records import LeaseID, LeaseResource
from cas.model.sizes import format_size
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory, LeaseUse, abandoned_ingests
from cas.store.backing import Backing
from cas.store.check.blobs import current_blob
from cas.store.check.findings import Finding, Problem, Severity
from cas.store.check.ingest_remains import check_ingest_remains
from cas.store.layers.extraction_key import EXTRACTION_PREFIX
from cas.store.layers.staging import iter_abandoned
from cas.store.locking import Locks

_Suspect = TypeVar("_Suspect")

_STALE = timedelta(days=1)
"""A partial file is kept that long for the next try of its ingest."""
_SETTLING_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_PRUNE = "'cas prune' or 'cas check --fix' removes it"


def check_leftovers(
    backing: Backing, inventory: Inventory, locks: Locks, now: datetime
) -> Iterator[Finding]:
    """Look for everything that no running operation owns.

    Raises:
        UnavailableError: containerd does not answer.
        StorageError: A directory cannot be read.
    """
    yield from _leases(backing, inventory)
    yield from _ingests(inventory, now)
    yield from check_ingest_remains(backing, now)
    yield from _foreign_files(backing, inventory)
    yield from _orphans(backing, inventory, locks)
    yield from _staged(backing, locks, now)
    yield from _extractions(backing, inventory)
    for path in iter_abandoned(backing.layout.unpacking):
        yield _leftover(
            Problem.UNPACK,
            str(path),
            f"{str(path)!r} was left by an unpack that was killed",
            "'cas check --fix' removes it",
        )


def _leftover(problem: Problem, name: str, message: str, advice: str = _PRUNE) -> Finding:
    return Finding(
        problem,
        invariant=7,
        severity=Severity.WARNING,
        object=name,
        message=message,
        advice=advice,
        fixable=True,
    )


def _leases(backing: Backing, inventory: Inventory) -> Iterator[Finding]:
    def present(suspects: list[LeaseUse]) -> list[LeaseUse]:
        known = {lease.id for lease in backing.leases.iter_leases()}
        return [lease for lease in suspects if lease.info.id in known]

    ended = [lease for lease in inventory.leases if not lease.alive and not lease.resumable]
    # One that is just being released is gone in a moment.
    for lease in _lasting(ended, present):
        state = "that nobody works under" if lease.dead else "whose time is over"
        yield _leftover(
            Problem.LEASE, lease.info.id, f"lease {lease.info.id} {state} is still there"
        )


def _ingests(inventory: Inventory, now: datetime) -> Iterator[Finding]:
    for _, ingest in abandoned_ingests(inventory, now):
        yield _leftover(
            Problem.INGEST,
            ingest.ref,
            f"unfinished write {ingest.ref!r} of {format_size(ingest.offset)} was abandoned",
        )


def _foreign_files(backing: Backing, inventory: Inventory) -> Iterator[Finding]:
    directory = backing.blobs_directory
    for name in inventory.foreign_names:
        if directory is not None and os.path.lexists(directory / name):
            yield Finding(
                Problem.FOREIGN_FILE,
                invariant=7,
                severity=Severity.ERROR,
                object=str(directory / name),
                message=f"{name!r} in the blobs directory is no digest and keeps containerd from "
                "removing any file",
                advice="'cas check --fix' moves it to the quarantine",
                fixable=True,
            )


def _orphans(backing: Backing, inventory: Inventory, locks: Locks) -> Iterator[Finding]:
    def present(suspects: list[bytes]) -> list[bytes]:
        return [raw for raw in suspects if _lacks_record(backing, Digest(raw.hex()))]

    # One whose record was just deleted is about to be collected, and another to be registered.
    for raw in _lasting(sorted(inventory.orphans), present):
        digest = Digest(raw.hex())
        if _is_orphan(backing, digest, locks):
            size = format_size(inventory.orphans[raw])
            yield _leftover(
                Problem.FILE_WITHOUT_RECORD,
                str(digest),
                f"file of blob {digest} ({size}) has no record",
            )


def _lasting(
    suspects: list[_Suspect], present: Callable[[list[_Suspect]], list[_Suspect]]
) -> list[_Suspect]:
    """Give those that are still there after a while; at once when there are none."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while suspects:
        suspects = present(suspects)
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    return suspects


def _has_file(backing: Backing, name: str) -> bool:
    directory = backing.blobs_directory
    return directory is not None and os.path.lexists(directory / name)


def _lacks_record(backing: Backing, digest: Digest) -> bool:
    return _has_file(backing, digest.hex) and current_blob(backing, digest) is None


def _is_orphan(backing: Backing, digest: Digest, locks: Locks) -> bool:
    """Look again under the blob's lock: whoever holds it is just bringing the blob in."""
    try:
        with locks.blob(digest, timeout_seconds=0):
            return _lacks_record(backing, digest)
    except LockTimeoutError:
        return False


def _staged(backing: Backing, locks: Locks, now: datetime) -> Iterator[Finding]:
    stage = backing.layout.stage
    for name, age in _files(stage, now):
        path = stage / name
        if age > _STALE and not _is_worked_on(path, locks):
            yield _leftover(
                Problem.STAGED_FILE,
                str(path),
                f"{str(path)!r} was left by an ingest that nobody went on with for a day",
            )


def _files(directory: Path, now: datetime) -> Iterator[tuple[str, timedelta]]:
    with translated("list", directory):
        try:
            entries = os.scandir(directory)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    yield entry.name, now - datetime.fromtimestamp(changed, UTC)


def _is_worked_on(path: Path, locks: Locks) -> bool:
    try:
        digest = Digest(path.name.partition(".")[0])
        with locks.blob(digest, timeout_seconds=0):
            return False
    except InvalidNameError:
        return False
    except LockTimeoutError:
        return True


def _extractions(backing: Backing, inventory: Inventory) -> Iterator[Finding]:
    """Find keys of interrupted unpacks; one that runs is held by a lease."""
    held = inventory.graph.marks()
    ended = {lease.info.id for lease in inventory.leases if not lease.alive}
    inventory.graph.mark((lease.node for lease in inventory.leases if lease.alive), held)
    for node in inventory.graph.nodes(Kind.SNAPSHOT):
        key = inventory.graph.name(node)
        if not key.startswith(EXTRACTION_PREFIX) or held[node]:
            continue
        if _is_unheld(backing, key, ended):
            yield _leftover(
                Problem.EXTRACTION, key, f"snapshot {key!r} was left by an interrupted unpack"
            )


def _is_unheld(backing: Backing, key: str, ended: AbstractSet[str]) -> bool:
    """Look again: its lease may be younger than the list of leases."""
    try:
        backing.snapshots.stat(key)
    except SnapshotNotFoundError:
        return False
    kind = f"snapshots/{backing.snapshotter}"
    return not any(
        resource.type == kind and resource.id == key
        for lease in list(backing.leases.iter_leases())
        if lease.id not in ended
        for resource in _resources(backing, lease.id)
    )


def _resources(backing: Backing, lease: LeaseID) -> list[LeaseResource]:
    try:
        return list(backing.leases.iter_resources(lease))
    except LeaseNotFoundError:
        return []
