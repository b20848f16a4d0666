"""Clears the way from downloader to store of what nobody goes on with; part of recovery.

The first recovery that meets a file leaves it, so that a transfer that a kill or a reboot ended can
go on; the second one that meets it unchanged removes it.
"""

__all__ = ["sweep_transfers"]

import json
from pathlib import Path

from cas.errors import LockTimeoutError
from cas.fsops.durable import remove_file, remove_temporaries, write_file
from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.store.transfers import TransferFile, iter_transfer_files, remove_if_idle


def sweep_transfers(layout: Layout) -> list[Path]:
    """Remove what two recoveries have met and nobody went on with; spare work under way.

    Whatever else lies in these directories belongs there as little and goes the same way.

    Returns:
        What was removed.

    Raises:
        StorageError: A system call failed.
    """
    for directory in (layout.downloader, layout.pending, layout.verified):
        if directory.is_dir():
            remove_temporaries(directory)
    met, left, removed = _read(layout.met_transfers), dict[str, int](), []

    def unchanged(file: TransferFile) -> bool:
        return met.get(str(file.path)) == file.changed

    for file in iter_transfer_files(layout):
        try:
            stays = remove_if_idle(layout, file.path, unchanged)
        except LockTimeoutError:
            continue  # somebody works on it
        if stays is None:
            removed.append(file.path)
        else:
            left[str(file.path)] = stays.changed
    if left != met:
        _write(layout.met_transfers, left)
    return removed


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
