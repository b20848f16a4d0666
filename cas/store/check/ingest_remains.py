"""What a killed containerd leaves of a write that it was removing, and never looks at again.

containerd removes the directory of a write file by file. Killed after the file that names the
write and before the data, it leaves bytes that no list shows and no collection takes. Looks only.
"""

__all__ = ["check_ingest_remains", "has_name"]

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cas.fsops.translation import translated
from cas.store.backing import Backing
from cas.store.check.findings import Finding, Problem, Severity

_STALE = timedelta(hours=1)
"""containerd names a write within milliseconds of making its directory."""
_NAME = "ref"


def check_ingest_remains(backing: Backing, now: datetime) -> Iterator[Finding]:
    """Find directories of writes that have no name and have not changed for an hour.

    Raises:
        StorageError: A directory cannot be read.
    """
    if backing.blobs_directory is None:
        return
    # Beside "blobs" in the content store's root; the same in all versions of containerd.
    for path in _nameless(backing.blobs_directory.parent.parent / "ingest", now - _STALE):
        yield Finding(
            Problem.INGEST_REMAINS,
            invariant=7,
            severity=Severity.WARNING,
            object=str(path),
            message=f"{str(path)!r} is what a killed containerd left of a write; it lost its name "
            "and is never removed",
            advice="'cas check --fix' removes it",
            fixable=True,
        )


def has_name(directory: Path) -> bool:
    """Whether a write's directory still says which write it is."""
    return os.path.lexists(directory / _NAME)


def _nameless(directory: Path, before: datetime) -> list[Path]:
    found = []
    with translated("list", directory), suppress(FileNotFoundError), os.scandir(directory) as all_:
        for entry in all_:
            with suppress(FileNotFoundError):
                changed = datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
                if changed < before and not has_name(Path(entry.path)):
                    found.append(Path(entry.path))
    return sorted(found)
