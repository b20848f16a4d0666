"""Clears the way from downloader to store of what nobody goes on with; part of recovery.

The first recovery that meets a file leaves it, so that a transfer that a kill or a reboot ended can
go on; the second one that meets it unchanged removes it.
"""

__all__ = ["sweep_transfers"]

from pathlib import Path

from cas.errors import LockTimeoutError
from cas.fsops.durable import remove_temporaries
from cas.model.layout import Layout
from cas.store.met_files import met_files
from cas.store.transfers import iter_transfer_files, remove_if_idle


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
    removed = []
    with met_files(layout.met_transfers) as met:
        for file in iter_transfer_files(layout):
            try:
                stays = remove_if_idle(
                    layout, file.path, lambda found: met.is_unchanged(found.path, found.changed)
                )
            except LockTimeoutError:
                continue  # somebody works on it
            if stays is None:
                removed.append(file.path)
            else:
                met.leave(stays.path, stays.changed)
    return removed
