"""Clears the staging directory of what killed ingests left; part of recovery."""

__all__ = ["sweep_stage"]

import json
import logging
from pathlib import Path

from cas.errors import InvalidNameError, LockTimeoutError
from cas.fsops.durable import remove_file, remove_temporaries, write_file
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.store.locking import Locks

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
    met = _read_met(layout.stage / _MET)
    removed: list[Path] = []
    spared: dict[str, int] = {}
    for path in sorted(layout.stage.glob(f"*{_SUFFIX}")):
        try:
            with locks.blob(Digest(path.name.removesuffix(_SUFFIX)), timeout_seconds=0):
                if not path.exists():
                    continue  # finished since it was listed
                changed = _remove_if_met(path, met)
        except (LockTimeoutError, InvalidNameError):
            continue  # somebody works on it, or it is not ours
        if changed is None:
            removed.append(path)
        else:
            spared[path.name] = changed
    if spared != met:
        _write_met(layout.stage / _MET, spared)
    return removed


def _remove_if_met(path: Path, met: dict[str, int]) -> int | None:
    """Its time of change, if it stays."""
    with translated("inspect", path):
        status = path.lstat()
    # With a second name it was linked among the blobs and has nothing to resume.
    if status.st_nlink == 1 and met.get(path.name) != status.st_mtime_ns:
        return status.st_mtime_ns
    remove_file(path)
    _log.info("partial file of a killed ingest removed path=%s", path)
    return None


def _read_met(path: Path) -> dict[str, int]:
    with translated("read", path):
        try:
            document = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
    return document if isinstance(document, dict) else {}


def _write_met(path: Path, spared: dict[str, int]) -> None:
    if spared:
        write_file(path, json.dumps(spared).encode())
    else:
        remove_file(path)
