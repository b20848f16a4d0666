"""Clears the way from downloader to store of what nobody goes on with; part of recovery.

The first recovery that meets a file leaves it, so that a transfer that a kill or a reboot ended can
go on; the second one that meets it unchanged removes it.
"""

__all__ = ["sweep_transfers"]

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cas.errors import InvalidNameError, LockTimeoutError
from cas.fsops.durable import remove_file, remove_temporaries, write_file
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.transfer_name import TransferName
from cas.store.locking import Locks

_log = logging.getLogger(__name__)

_NAME_LENGTH = 36 + 1 + 64
"""Of a UUID, a dot and a digest; what a transfer keeps beside its file has a longer name."""


def sweep_transfers(layout: Layout) -> list[Path]:
    """Remove what two recoveries have met and nobody went on with; spare work under way.

    Whatever else lies in these directories belongs there as little and goes the same way.

    Returns:
        What was removed.

    Raises:
        StorageError: A system call failed.
    """
    locks, met = Locks(layout), _read(layout.met_transfers)
    removed: list[Path] = []
    left: dict[str, int] = {}
    for path in _files(layout):
        digest = _digest(path)
        try:
            if digest is None:
                changed = _remove_if_met(path, met)
            else:
                with locks.transfer(digest, timeout_seconds=0):
                    changed = _remove_if_met(path, met)
        except LockTimeoutError:
            continue  # somebody works on it
        if changed is None:
            removed.append(path)
        else:
            left[str(path)] = changed
    if left != met:
        _write(layout.met_transfers, left)
    return removed


def _files(layout: Layout) -> Iterator[Path]:
    for directory in (layout.downloader, layout.pending, layout.verified):
        if directory.is_dir():
            remove_temporaries(directory)
            yield from sorted(directory.iterdir())


def _digest(path: Path) -> Digest | None:
    """Whose transfer a file belongs to; None if it is no transfer's."""
    with suppress(InvalidNameError):
        return TransferName.parse(path.name[:_NAME_LENGTH]).digest
    with suppress(InvalidNameError):
        return Digest(path.name)
    return None


def _remove_if_met(path: Path, met: dict[str, int]) -> int | None:
    """Its time of change, if it stays; None if it is gone."""
    with translated("inspect", path):
        try:
            changed = path.lstat().st_mtime_ns
        except FileNotFoundError:
            return None
    if met.get(str(path)) != changed:
        return changed
    remove_tree(path)
    _log.info("leftover of a transfer removed path=%s", path)
    return None


def _read(path: Path) -> dict[str, int]:
    with translated("read", path):
        try:
            document = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
    return document if isinstance(document, dict) else {}


def _write(path: Path, left: dict[str, int]) -> None:
    if left:
        write_file(path, json.dumps(left).encode())
    else:
        remove_file(path)
