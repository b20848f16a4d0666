"""What a transfer has on the disk on its way, and when none of it is to stay."""

__all__ = ["clearing", "drop_remains", "is_final", "places"]

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from cas.datastores.fetch import discard
from cas.errors import (
    CasError,
    InterruptedOperationError,
    LeaseNotFoundError,
    LockTimeoutError,
    NoSpaceError,
    StorageError,
    VaultError,
)
from cas.fsops.durable import remove_file
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.transfer_name import TransferName
from cas.store.locking import Locks

_log = logging.getLogger(__name__)

_OVERCOME = (InterruptedOperationError, LeaseNotFoundError, NoSpaceError, VaultError)
"""Not temporary by themselves, and no fault of what came: the same call goes on one day."""


def is_final(error: CasError) -> bool:
    """Whether nobody will go on with what came before an error."""
    return not error.temporary and not isinstance(error, _OVERCOME)


def places(layout: Layout, name: TransferName) -> tuple[Path, Path, Path]:
    """Where a blob is on its way, last place first."""
    return (
        layout.verified / name.digest.hex,
        layout.pending / str(name),
        layout.download(name),
    )


def drop_remains(layout: Layout, name: TransferName) -> None:
    """Remove a blob wherever it is on its way. Idempotent.

    Raises:
        StorageError: A system call failed.
    """
    verified, pending, download = places(layout, name)
    remove_file(verified)
    remove_file(pending)
    discard(download)


@contextmanager
def clearing(layout: Layout, image: UUID) -> Iterator[set[Digest]]:
    """Leave nothing of an image that failed for good; gives the digests to remember for that.

    What another call works on at that moment is left to it. A file that cannot be removed is
    logged, and the failure of the image stays the error.

    Args:
        layout: Where files are on their way.
        image: UUID in their names.
    """
    begun: set[Digest] = set()
    try:
        yield begun
    except CasError as error:
        if is_final(error):
            for digest in begun:
                _abandon(layout, TransferName(image, digest))
        raise


def _abandon(layout: Layout, name: TransferName) -> None:
    try:
        with Locks(layout).transfer(name.digest, timeout_seconds=0):
            drop_remains(layout, name)
    except LockTimeoutError:
        _log.debug("transfer left to whoever works on it name=%s", name)
    except StorageError as error:
        _log.warning("leftover of a transfer stays name=%s error=%s", name, error)
