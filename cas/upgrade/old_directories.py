"""Directories of the layout that older software has made, with owner and mode of its own."""

__all__ = ["give_layout_access"]

import logging
from collections.abc import Iterator
from pathlib import Path

from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.model.settings import Settings
from cas.store.directories import (
    Deviation,
    create_directories,
    find_deviations,
    require_directories,
)
from cas.upgrade.pending import is_under_way

_log = logging.getLogger(__name__)
_ACCESS = frozenset({"owner", "group", "mode"})
_OLD_OWNER = 0
"""All older software ran as root; what belongs to somebody else is not its work."""


def give_layout_access(settings: Settings) -> None:
    """Create what is missing, and set owner and mode of what older software has made.

    That is done, and logged, only while something of an upgrade is to be done; whatever deviates
    then is refused here, before anything is converted. Afterwards it stays, for whoever opens the
    store to refuse. Idempotent.

    Args:
        settings: Of a vault that is open.

    Raises:
        DeniedError: The process is not root.
        LayoutError: A directory is a symbolic link, or on a file system of its own, or it is not
            as the layout wants it although older software did not make it so.
        VaultLockedError: A vault is locked; nothing was changed.
        StorageError: A system call failed.
    """
    if not is_under_way(settings.layout):
        create_directories(settings)
        return
    deviations = list(_of_older_software(settings))
    for each in deviations:
        _log.warning(
            "directory of older software gets the layout's %s path=%s expected=%s found=%s",
            each.problem,
            each.path,
            each.expected,
            each.actual,
        )
    create_directories(settings, repair={each.path for each in deviations})
    require_directories(settings, {*_made(settings.layout), settings.layout.case})


def _made(layout: Layout) -> set[Path]:
    """The directories that older software may have made."""
    return {layout.vault, layout.volumes, layout.clear_volumes.parent, layout.clear_volumes}


def _of_older_software(settings: Settings) -> Iterator[Deviation]:
    made = _made(settings.layout)
    for each in find_deviations(settings):
        if each.path in made and each.problem in _ACCESS:
            with translated("inspect", each.path):
                is_old = each.path.lstat().st_uid == _OLD_OWNER
            if is_old:
                yield each
