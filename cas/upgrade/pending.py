"""What there is left to do for an upgrade; looks only."""

__all__ = ["awaits_store", "has_untold_merges", "is_needed", "is_under_way"]

from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.store.kept_downloads import iter_kept
from cas.upgrade.device import is_vacant
from cas.upgrade.merge_account import MergeAccount
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.old_store import old_stores
from cas.upgrade.report import told_bytes
from cas.upgrade.scan import scan
from cas.volumes.holds import iter_held


def is_under_way(layout: Layout) -> bool:
    """Whether there is anything to convert, to take into the store or to tell.

    Raises:
        StorageError: A system call failed.
    """
    return is_needed(layout) or awaits_store(layout)


def is_needed(layout: Layout) -> bool:
    """Whether anything lies in the old places or is held, or the report lacks a merge.

    So it is while a store that was merged is half removed.

    Raises:
        StorageError: A system call failed.
    """
    if next(scan(layout), None) is not None:
        return True
    if any(OldLayout.removing(store).exists() for store in OldLayout(layout.persist).stores):
        return True
    return next(iter_held(layout), None) is not None or has_untold_merges(layout)


def has_untold_merges(layout: Layout) -> bool:
    """Whether merges have brought or left what the report does not tell yet.

    Nobody's clock is asked: that of a device may go back between two starts.

    Raises:
        StorageError: A system call failed.
    """
    merges, report = layout.upgrade_merges, layout.upgrade_report
    with translated("inspect", report):
        if not merges.exists():
            return False
        return told_bytes(report) != merges.stat().st_size


def awaits_store(layout: Layout) -> bool:
    """Whether a store that is there by now is to take in what older software left.

    Raises:
        StorageError: A system call failed.
    """
    if next(iter_kept(layout), None) is not None:
        return True
    if not MergeAccount(layout.upgrade_merges).is_settled:
        return True
    return not is_vacant(layout.case) and bool(old_stores(layout))
