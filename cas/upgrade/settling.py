"""Looks at what a killed run left, before a plan is made."""

__all__ = ["remove_temporary_copies", "settle", "sweep_temporary_copies"]

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from cas.errors import InvalidNameError, LockTimeoutError
from cas.fsops.durable import remove_temporaries
from cas.fsops.inode_flags import remove_barred
from cas.fsops.locks import lock
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.upgrade.device import Device
from cas.upgrade.journal import Journal, Step
from cas.upgrade.old_layout import OldLayout

_SUFFIX = ".converting"

_Advance = Callable[[int], object]


def settle(
    persist: Path,
    journal: Journal,
    device: Device,
    clock: Callable[[], datetime],
    *,
    advance: _Advance,
) -> None:
    """Bring the journal up to what is on disk, and finish removals.

    Args:
        persist: The directory.
        journal: Open for writing.
        device: Where.
        clock: Gives the current time, aware.
        advance: Told of each entry that is removed; may stop it.

    Raises:
        StorageError: A system call failed.
    """
    for entry in journal.entries():
        if entry.step is not Step.INTENDED:
            continue
        source = device.inode(persist / entry.source)
        target = device.inode(persist / entry.target) if entry.target else None
        if source is None:  # the last thing that is done to it is that it goes
            remove_barred(OldLayout.removing(persist / entry.source), advance=advance)
            step = Step.DONE
        elif entry.target and target is None:
            step = Step.UNDONE
        else:
            continue  # the plan says what is left to do
        time = clock().isoformat(timespec="seconds")
        journal.add(msgspec.structs.replace(entry, step=step, time=time))


def sweep_temporary_copies(layout: Layout) -> int:
    """Remove what a killed run was copying, unless a run is under way; part of recovery.

    Returns:
        How many there were.

    Raises:
        StorageError: A system call failed.
    """
    if not layout.upgrade_journal.exists():
        return 0
    try:
        with lock(layout.upgrade_lock, timeout_seconds=0):
            return remove_temporary_copies(layout)
    except LockTimeoutError:
        return 0


def remove_temporary_copies(layout: Layout, *, advance: _Advance = lambda _: None) -> int:
    """Remove what a killed run was copying; the caller holds the lock of runs.

    Args:
        layout: Where.
        advance: Told of each entry that is removed; may stop it.

    Returns:
        How many there were.

    Raises:
        StorageError: A system call failed.
    """
    count = 0
    for directory in _written(layout):
        if directory.is_dir():
            count += remove_temporaries(directory)
    for directory in (layout.volumes, layout.clear_volumes):
        with translated("list", directory):
            paths = list(directory.iterdir()) if directory.is_dir() else []
        for path in paths:
            if _is_temporary(path.name):
                count += remove_tree(path, advance=advance)
    return count + remove_tree(layout.converting(layout.case), advance=advance)


def _written(layout: Layout) -> set[Path]:
    """The directories that a run writes small files and directories into."""
    made = {directory.path.parent for directory in layout.directories()}
    return made | {layout.upgrade, layout.held_volumes, layout.kept_downloads}


def _is_temporary(name: str) -> bool:
    if not (name.startswith(".") and name.endswith(_SUFFIX)):
        return False
    try:
        VolumeName.parse(name.removeprefix(".").removesuffix(_SUFFIX))
    except InvalidNameError:
        return False
    return True
