"""Files on their way from downloader to store: what lies there, and what nobody works on."""

__all__ = ["TransferFile", "idle_transfers", "iter_transfer_files", "remove_if_idle"]

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cas.errors import InvalidNameError
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.transfer_name import TransferName
from cas.store.account.files import allocated_size
from cas.store.account.inventory import ABANDONED_AFTER
from cas.store.kept_downloads import is_kept
from cas.store.locking import Locks

_log = logging.getLogger(__name__)

_NAME_LENGTH = 36 + 1 + 64
"""Of a UUID, a dot and a digest; what a transfer keeps beside its file has a longer name."""


@dataclass(frozen=True, slots=True)
class TransferFile:
    """A file of a transfer, or whatever else lies where these are.

    Args:
        path: Where it is.
        changed: When it was last written to, in nanoseconds since 1970.
        size: Allocated bytes.
    """

    path: Path
    changed: int
    size: int

    @property
    def updated(self) -> datetime:
        """When it was last written to, aware UTC."""
        return datetime.fromtimestamp(self.changed / 1e9, UTC)


def iter_transfer_files(layout: Layout) -> Iterator[TransferFile]:
    """Look at everything on its way, sorted within each directory.

    What older software had verified, and is not in the store yet, is on nobody's way.

    Raises:
        StorageError: A system call failed.
    """
    for directory in (layout.downloader, layout.pending, layout.verified):
        if directory.is_dir():
            for path in sorted(directory.iterdir()):
                found = None if _is_kept(layout, path) else _look(path)
                if found is not None:
                    yield found


def _is_kept(layout: Layout, path: Path) -> bool:
    digest = _digest(path) if path.parent == layout.verified else None
    return digest is not None and is_kept(layout, digest)


def idle_transfers(layout: Layout, now: datetime) -> Iterator[TransferFile]:
    """Give what nobody has gone on with for an hour; raises as :func:`iter_transfer_files`."""
    for found in iter_transfer_files(layout):
        if now - found.updated > ABANDONED_AFTER:
            yield found


def remove_if_idle(
    layout: Layout, path: Path, judge: Callable[[TransferFile], bool]
) -> TransferFile | None:
    """Remove a file that no transfer works on, if ``judge`` says so. Idempotent.

    Returns:
        The file, if it stays; None if it is gone.

    Raises:
        LockTimeoutError: A transfer of its digest is under way.
        StorageError: A system call failed.
    """
    with _locked(layout, path):
        found = _look(path)
        if found is None or not judge(found):
            return found
        remove_tree(path)
    _log.info("leftover of a transfer removed path=%s", path)
    return None


def _look(path: Path) -> TransferFile | None:
    with translated("inspect", path):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
    return TransferFile(path, status.st_mtime_ns, allocated_size(path) or 0)


def _locked(layout: Layout, path: Path) -> AbstractContextManager[object]:
    digest = _digest(path)
    if digest is None:
        return nullcontext()
    return Locks(layout).transfer(digest, timeout_seconds=0)


def _digest(path: Path) -> Digest | None:
    """Whose transfer a file belongs to; None if it is no transfer's."""
    with suppress(InvalidNameError):
        return TransferName.parse(path.name[:_NAME_LENGTH]).digest
    with suppress(InvalidNameError):
        return Digest(path.name)
    return None
