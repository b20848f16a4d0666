"""Which old stores there are; keeps a containerd from making a new one where one of them is to go.

Once there is a new store, the old one's metadata can never become its own, and with it the images,
snapshots and data of all containers. What a link leads to is somebody else's, and no old store.
"""

__all__ = ["old_stores", "require_store_converted"]

from pathlib import Path

from cas.errors import ConflictError
from cas.model.layout import Layout
from cas.upgrade.device import is_vacant
from cas.upgrade.old_layout import OldLayout


def old_stores(layout: Layout) -> list[Path]:
    """Give the roots of older software's containerd that hold anything, the later one first.

    Raises:
        StorageError: A system call failed.
    """
    return [
        root
        for root in OldLayout(layout.persist).stores
        if root.is_dir() and not root.is_symlink() and not is_vacant(root)
    ]


def require_store_converted(layout: Layout) -> None:
    """Return if there is no old store, or a new one already.

    Raises:
        ConflictError: There is an old one, and no containerd may make a new one yet.
        StorageError: A system call failed.
    """
    for store in old_stores(layout):
        if is_vacant(layout.case):
            raise ConflictError(
                f"{str(store)!r} is a store of older software, which has to become "
                f"{str(layout.case)!r} before a containerd makes a new one there; run `cas "
                "upgrade run`, or remove it if its images and containers are not needed",
                path=store,
            )
