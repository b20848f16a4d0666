"""Keeps a containerd from making a new store where an old one is to go.

Once there is a new store, the old one's metadata can never become its own, and with it the images,
snapshots and data of all containers.
"""

__all__ = ["require_store_converted"]

from cas.errors import ConflictError
from cas.model.layout import Layout
from cas.upgrade.device import is_vacant
from cas.upgrade.old_layout import OldLayout


def require_store_converted(layout: Layout) -> None:
    """Return if there is no old store, or a new one already.

    Raises:
        ConflictError: There is an old one, and no containerd may make a new one yet.
        StorageError: A system call failed.
    """
    for store in OldLayout(layout.persist).stores:
        if store.is_dir() and not is_vacant(store) and is_vacant(layout.case):
            raise ConflictError(
                f"{str(store)!r} is a store of older software, which has to become "
                f"{str(layout.case)!r} before a containerd makes a new one there; run `cas "
                "upgrade run`, or remove it if its images and containers are not needed",
                path=store,
            )
