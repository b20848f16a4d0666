"""One object from where it is published to a file, whatever happens on the way.

A final name is a whole object: until then the bytes lie beside it in ``<name>.partial``, and what
may be trusted of them is noted in ``<name>.progress``. Both are gone when the final name is there.
A transfer goes on where its bytes are proven to be on the device and its source is proven to be
unchanged, and nowhere else, so a kill or power cut costs at most what was not synced.

Nothing here hashes: the digest is the verifier's to prove, on its own copy of the name.
"""

__all__ = ["FETCHED_MODE", "Fetched", "discard", "fetch", "held_bytes"]

import os
from dataclasses import dataclass
from pathlib import Path

from cas.datastores.port import RemoteObject, Source
from cas.datastores.progress_record import ProgressRecord, read_record, write_record
from cas.datastores.terms import Terms, Wanted
from cas.datastores.transfer import Transfer
from cas.errors import (
    IntegrityError,
    NoSpaceError,
    NotFoundError,
    SourceProtocolError,
    StorageError,
)
from cas.fsops.durable import publish, remove_file
from cas.fsops.inode import StagedInode
from cas.fsops.locks import FileLock
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes

FETCHED_MODE = 0o640
"""For the directory's group to measure."""
_PARTIAL = ".partial"
_PROGRESS = ".progress"
_DIGEST = "digest"
_HOPELESS = (IntegrityError, NotFoundError, SourceProtocolError, StorageError)
"""Failures after which the bytes that came are worth nothing."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Args:
        size: Bytes of the object.
        received: Of these, how many came from the source this time (more than all of them, if it
            had to begin anew).
        kept: How many an earlier call had left.
    """

    size: int
    received: int
    kept: int


def fetch(source: Source, wanted: Wanted, destination: Path, terms: Terms | None = None) -> Fetched:
    """Bring an object into the file ``destination``, going on with what an earlier call left.

    On success the file has the wanted size (or the one that the source announced), is durable,
    readable by its owner and its group, and nothing else is left; that it has the wanted digest is
    not known. A destination that exists is success and not fetched again. After a failure the
    destination does not exist; what a later call can go on with lies beside it, and nothing does
    where the object is gone, wrong or not to be trusted. One caller per destination.

    Args:
        source: Where the object is.
        wanted: What it is.
        destination: Final name; its directory exists.
        terms: Policy, progress, cancellation, room.

    Raises:
        SourceNotFoundError: There is no such object.
        SourceUnavailableError: It could not be had, in any of the attempts.
        SourceStalledError: It came too slowly, in the last attempt.
        RateLimitedError: The source asked for a longer pause than allowed, or asked too often.
        SourceChangedError: It changed again and again.
        SourceProtocolError: The source's answers make no sense.
        AuthenticationError: The source refuses the credentials.
        UntrustedServerError: The source's certificate is not trusted.
        SizeMismatchError: It has another size than wanted, or than announced.
        LimitExceededError: It is larger than allowed.
        NoSpaceError: No room; what came is kept.
        LockTimeoutError: Another call works on the same destination.
        InterruptedOperationError: Cancelled; what came is kept.
        StorageError: A system call on the file failed.
    """
    terms = terms or Terms()
    partial, progress = _beside(destination, _PARTIAL), _beside(destination, _PROGRESS)
    held = FileLock(partial)
    held.acquire(timeout_seconds=0)
    with held:
        size = _size(destination)
        if size is not None:
            _remove_work(destination)
            return Fetched(size, received=0, kept=size)
        with StagedInode.open_partial(partial, mode=FETCHED_MODE) as file:
            known = _restore(file, progress, source, wanted)
            kept = file.size
            transfer = Transfer(
                source,
                wanted,
                terms,
                file=file,
                remote=known,
                note=lambda remote, synced: _note(progress, source, wanted, remote, synced),
            )
            try:
                transfer.run()
            except BaseException as error:
                _settle(error, transfer, destination)
                raise
            publish(partial, destination)
            remove_file(progress)
            return Fetched(file.size, transfer.received, kept)


def discard(destination: Path) -> None:
    """Remove a fetched object and whatever a fetch of it left. Idempotent.

    Raises:
        StorageError: A system call failed.
    """
    _remove_work(destination)
    remove_file(destination)


def held_bytes(destination: Path) -> int:
    """Tell how much of the disk an object and what a fetch of it left take by now.

    Raises:
        StorageError: A system call failed.
    """
    paths = (destination, _beside(destination, _PARTIAL))
    return sum(allocated_bytes(path) for path in paths if os.path.lexists(path))


def _beside(destination: Path, suffix: str) -> Path:
    return destination.with_name(destination.name + suffix)


def _size(path: Path) -> int | None:
    with translated("inspect", path):
        try:
            return path.lstat().st_size
        except FileNotFoundError:
            return None


def _remove_work(destination: Path) -> None:
    # The note first: without it the bytes are nothing.
    remove_file(_beside(destination, _PROGRESS))
    remove_file(_beside(destination, _PARTIAL))


def _restore(file: StagedInode, progress: Path, source: Source, wanted: Wanted) -> RemoteObject:
    """Cut a partial file back to what may be trusted; gives the object that this is of."""
    record = read_record(progress)
    if record is None or not _continues(record, file, source, wanted):
        remove_file(progress)
        file.restart()
        return RemoteObject(None, None)
    file.truncate(record.synced)
    return RemoteObject(record.size, record.validator)


def _continues(record: ProgressRecord, file: StagedInode, source: Source, wanted: Wanted) -> bool:
    same_place = record.source == _identity(source, wanted)
    return (
        record.digest == str(wanted.digest)
        and (same_place or record.validator.kind == _DIGEST)
        and record.synced <= file.size
        and wanted.size in (None, record.size)
    )


def _note(
    progress: Path, source: Source, wanted: Wanted, remote: RemoteObject, synced: int
) -> None:
    if remote.validator is not None:
        record = ProgressRecord(
            source=_identity(source, wanted),
            digest=str(wanted.digest),
            validator=remote.validator,
            size=remote.size,
            synced=synced,
        )
        write_record(progress, record)


def _identity(source: Source, wanted: Wanted) -> str:
    """The place of an object without signatures, which are renewed between two attempts."""
    return f"{source.name} {wanted.path.partition('?')[0]}"


def _settle(error: BaseException, transfer: Transfer, destination: Path) -> None:
    """Keep what a later call can go on with, or leave nothing."""
    if not isinstance(error, _HOPELESS):
        try:
            kept = transfer.keep()
        except NoSpaceError:
            kept = read_record(_beside(destination, _PROGRESS)) is not None
        if kept:
            return
    _remove_work(destination)
