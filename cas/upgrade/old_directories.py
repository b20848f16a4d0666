"""Directories of the layout that older software has made, with owner and mode of its own."""

__all__ = ["give_layout_access"]

import logging
from collections.abc import Iterator

from cas.fsops.translation import translated
from cas.model.settings import Settings
from cas.store.directories import Deviation, create_directories, find_deviations
from cas.upgrade.pending import is_under_way

_log = logging.getLogger(__name__)
_ACCESS = frozenset({"owner", "group", "mode"})
_OLD_OWNER = 0
"""All older software ran as root; what belongs to somebody else is not its work."""


def give_layout_access(settings: Settings) -> None:
    """Create what is missing, and set owner and mode of what older software has made.

    That is done, and logged, only while something of an upgrade is to be done; afterwards whatever
    deviates stays, for whoever opens the store to refuse. Idempotent.

    Args:
        settings: Of a vault that is open.

    Raises:
        DeniedError: The process is not root.
        LayoutError: A directory is a symbolic link, or on a file system of its own.
        VaultLockedError: A vault is locked; nothing was changed.
        StorageError: A system call failed.
    """
    deviations = list(_of_older_software(settings)) if is_under_way(settings.layout) else []
    for each in deviations:
        _log.warning(
            "directory of older software gets the layout's %s path=%s expected=%s found=%s",
            each.problem,
            each.path,
            each.expected,
            each.actual,
        )
    create_directories(settings, repair={each.path for each in deviations})


def _of_older_software(settings: Settings) -> Iterator[Deviation]:
    layout = settings.layout
    made = {layout.vault, layout.volumes, layout.clear_volumes.parent, layout.clear_volumes}
    for each in find_deviations(settings):
        if each.path in made and each.problem in _ACCESS:
            with translated("inspect", each.path):
                is_old = each.path.lstat().st_uid == _OLD_OWNER
            if is_old:
                yield each
