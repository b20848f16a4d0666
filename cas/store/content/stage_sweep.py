"""Clears the staging directory of what killed ingests left; part of recovery."""

__all__ = ["sweep_stage"]

import logging
from pathlib import Path

from cas.errors import InvalidNameError, LockTimeoutError
from cas.fsops.durable import remove_file, remove_temporaries
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.store.locking import Locks
from cas.store.met_files import MetFiles, met_files

_log = logging.getLogger(__name__)

_SUFFIX = ".partial"
_MET = "met-by-recovery.json"
"""Names and times of change of the partial files that the last recovery left."""


def sweep_stage(layout: Layout, locks: Locks) -> list[Path]:
    """Remove partial files that a recovery met before, and temporary ones; spare work under way.

    The first recovery after a kill leaves a partial file, so that the ingest can go on with it.
    Idempotent but for that.

    Returns:
        What was removed.
    """
    if not layout.stage.is_dir():
        return []
    remove_temporaries(layout.stage)
    removed = []
    with met_files(layout.stage / _MET) as met:
        for path in sorted(layout.stage.glob(f"*{_SUFFIX}")):
            try:
                with locks.blob(Digest(path.name.removesuffix(_SUFFIX)), timeout_seconds=0):
                    if path.exists() and not _stays(path, met):  # it may be finished by now
                        removed.append(path)
            except (LockTimeoutError, InvalidNameError):
                continue  # somebody works on it, or it is not ours
    return removed


def _stays(path: Path, met: MetFiles) -> bool:
    """Leave a file or remove it."""
    with translated("inspect", path):
        status = path.lstat()
    # With a second name it was linked among the blobs and has nothing to resume.
    if status.st_nlink == 1 and not met.is_unchanged(path, status.st_mtime_ns):
        met.leave(path, status.st_mtime_ns)
        return True
    remove_file(path)
    _log.info("partial file of a killed ingest removed path=%s", path)
    return False
