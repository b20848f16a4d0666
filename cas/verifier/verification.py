"""Proves that a file is what its name says; runs in the verifier's process.

Invariants: a name in ``verified`` is given only to the inode that was hashed, after it was hashed;
what is not as claimed is removed. Nobody else can write in these directories, and the files were
made unchangeable before they came in.
"""

__all__ = ["PENDING", "VERIFIED", "verify_pending"]

import hashlib
from collections.abc import Callable
from pathlib import Path

from cas.errors import DigestMismatchError, IntegrityError, SizeMismatchError
from cas.fsops.durable import publish, remove_file
from cas.fsops.reading import RegularFile, open_regular
from cas.model.digest import Digest
from cas.model.transfer_name import TransferName

PENDING = "pending"
VERIFIED = "verified"


def verify_pending(
    directory: Path,
    name: TransferName,
    size: int | None,
    progress: Callable[[int, int | None], None],
) -> int:
    """Hash ``pending/<name>`` and rename it to ``verified/<sha256>``, durably.

    A file that is there already under that name is replaced: it has the same bytes, or lost them.

    Args:
        directory: The verifier's.
        name: Of the file.
        size: Bytes it must have.
        progress: Told of bytes hashed; what it raises ends the call and leaves the file.

    Returns:
        Its size.

    Raises:
        DigestMismatchError: It has another digest; it is removed.
        SizeMismatchError: It has another size; it is removed.
        SourceNotFoundError: There is no such file.
        StorageError: A system call failed, or it is no regular file; it stays.
    """
    path = directory / PENDING / str(name)
    try:
        with open_regular(path) as file:
            _require(file, name.digest, size, progress)
            count = file.size
    except IntegrityError:
        remove_file(path)
        raise
    publish(path, directory / VERIFIED / name.digest.hex, replace=True)
    return count


def _require(
    file: RegularFile,
    expected: Digest,
    size: int | None,
    progress: Callable[[int, int | None], None],
) -> None:
    if size is not None and file.size != size:
        raise SizeMismatchError(
            f"what was downloaded as {expected} has {file.size} bytes, expected {size}; it was "
            "removed",
            digest=expected,
            expected=size,
            actual=file.size,
        )
    actual = _digest(file, progress)
    if actual != expected:
        raise DigestMismatchError(
            f"what was downloaded as {expected} has the digest {actual}; it was removed",
            expected=expected,
            actual=actual,
        )


def _digest(file: RegularFile, progress: Callable[[int, int | None], None]) -> Digest:
    running, done = hashlib.sha256(), 0
    for chunk in file.chunks():
        running.update(chunk)
        done += len(chunk)
        progress(done, file.size)
    return Digest(running.hexdigest())
