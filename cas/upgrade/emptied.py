"""Removes the old places that nothing is left in."""

__all__ = ["remove_emptied"]

from pathlib import Path

from cas.fsops.translation import translated
from cas.fsops.trees import remove_if_empty
from cas.upgrade.old_layout import OldLayout

_DOWNLOAD_LEVELS = 3
"""A kind, a state, a digest."""


def remove_emptied(old: OldLayout) -> None:
    """Remove the directories of the old layout that are empty, deepest first. Idempotent.

    Raises:
        StorageError: A system call failed.
    """
    _remove(old.downloads, _DOWNLOAD_LEVELS)
    _remove(old.disks, 0)
    if not any(directory.is_symlink() for directory in old.above_containers):
        for directory in (old.containers, *reversed(old.above_containers)):
            _remove(directory, 0)


def _remove(directory: Path, levels: int) -> None:
    if directory.is_symlink() or not directory.is_dir():
        return
    if levels:
        with translated("list", directory):
            below = list(directory.iterdir())
        for each in below:
            _remove(each, levels - 1)
    remove_if_empty(directory)
