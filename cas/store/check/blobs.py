"""Do the blobs have files, and do the files have the bytes? Looks only.

Two ways: every file's kind, size and mode, which costs a system call each; and every byte, within a
time, with a cursor that lets the next run go on where this one stopped.
"""

__all__ = ["blob_finding", "blob_trouble", "check_blob_files", "current_blob"]

import stat
from collections.abc import Iterator
from pathlib import Path

from cas.errors import BlobNotFoundError
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.records import BlobInfo
from cas.store.account.files import blob_path
from cas.store.account.graph import Graph, Kind
from cas.store.backing import Backing
from cas.store.check.findings import Finding, Hits, Problem, Severity

_WRITABLE = 0o222
_AGAIN = "import or ingest it again; --fix sets the rest aside so that this works"


def check_blob_files(backing: Backing, graph: Graph, hits: Hits) -> Iterator[Finding]:
    """Look at the file of every blob; nothing where the files are out of reach.

    Raises:
        StorageError: A file cannot be inspected.
    """
    directory = backing.blobs_directory
    if directory is None:
        return
    for node in graph.nodes(Kind.BLOB):
        digest = Digest.parse(graph.name(node))
        if blob_trouble(directory, digest, graph.size(node)) is not None:
            yield from _confirmed(backing, directory, digest, hits)


def blob_trouble(directory: Path, digest: Digest, size: int) -> tuple[Problem, str] | None:
    """Say what is wrong with a blob's file as far as its inode tells; None if nothing."""
    path = blob_path(directory, digest)
    with translated("inspect", path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return Problem.BLOB_FILE_MISSING, "its file is gone"
    if not stat.S_ISREG(found.st_mode):
        return Problem.BLOB_UNREADABLE, f"its file is of type {stat.filemode(found.st_mode)[0]!r}"
    if found.st_size != size:
        return Problem.BLOB_SIZE, f"its file has {found.st_size} bytes, expected {size}"
    if found.st_mode & _WRITABLE or found.st_uid != 0:
        mode = stat.S_IMODE(found.st_mode)
        return Problem.BLOB_FILE_UNSAFE, f"its file has owner {found.st_uid} and mode {mode:04o}"
    return None


def _confirmed(backing: Backing, directory: Path, digest: Digest, hits: Hits) -> Iterator[Finding]:
    """Look again with a fresh record: the blob may have been removed or replaced meanwhile."""
    blob = current_blob(backing, digest)
    if blob is None:
        return
    problem = blob_trouble(directory, digest, blob.size)
    if problem is not None and current_blob(backing, digest) is not None:
        yield blob_finding(digest, *problem, hits)


def blob_finding(digest: Digest, problem: Problem, message: str, hits: Hits) -> Finding:
    """Make the finding about a blob, with the images and volumes that need it."""
    unsafe = problem is Problem.BLOB_FILE_UNSAFE
    return Finding(
        problem,
        invariant=1,
        severity=Severity.ERROR,
        object=str(digest),
        message=f"blob {digest}: {message}",
        advice="repair hashes it and makes it read-only again" if unsafe else _AGAIN,
        fixable=True,
        **hits.of(Kind.BLOB, str(digest)),
    )


def current_blob(backing: Backing, digest: Digest) -> BlobInfo | None:
    """Give the record as it is now; None if there is none."""
    try:
        return backing.content.info(digest)
    except BlobNotFoundError:
        return None
