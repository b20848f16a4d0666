"""Takes content that older software left into the store, once containerd can be asked.

Verified downloads, and the blobs of an old store beside which a newer one stands: each is hashed
again, becomes a pinned blob if it is not one already, and then goes from where it was. The newer
store's metadata is not touched, and the old one's is of no use to it.
"""

__all__ = ["Ingest", "ingest_content"]

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from cas.errors import CasError, InterruptedOperationError, InvalidNameError, UnavailableError
from cas.fsops.durable import remove_file
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.upgrade.device import is_vacant
from cas.upgrade.items import Kind
from cas.upgrade.journal import Journal, Step
from cas.upgrade.old_layout import OldLayout

_log = logging.getLogger(__name__)
_BLOBS = Path("io.containerd.content.v1.content", "blobs", "sha256")

Ingest = Callable[[Path, Digest], object]
"""Stores a file under the digest that it must have; may take the file away."""


def ingest_content(layout: Layout, ingest: Ingest) -> Iterator[tuple[Path, CasError | None]]:
    """Ingest what was left; idempotent, and what fails stays where it is.

    Args:
        layout: Where.
        ingest: Stores one file, verified and durable when it returns.

    Yields:
        Each file, with the error if it could not be ingested.

    Raises:
        UnavailableError: containerd does not answer.
        InterruptedOperationError: The work was stopped.
        StorageError: A directory cannot be listed.
    """
    for path in (*_verified(layout), *_old_blobs(layout)):
        try:
            ingest(path, Digest(path.name))
            remove_file(path)
        except (UnavailableError, InterruptedOperationError):
            raise
        except CasError as error:
            _log.warning("old content not ingested path=%s error=%s", path, error)
            yield path, error
        else:
            yield path, None


def _verified(layout: Layout) -> Iterator[Path]:
    """Give what a conversion has put into the verifier's directory and is still there."""
    with Journal(layout.upgrade_journal, writing=False) as journal:
        entries = journal.entries()
    for entry in entries:
        path = layout.persist / entry.target
        if entry.kind == Kind.VERIFIED and entry.step is Step.DONE and path.is_file():
            yield path


def _old_blobs(layout: Layout) -> Iterator[Path]:
    if is_vacant(layout.case):
        return
    for store in OldLayout(layout.persist).stores:
        directory = store / _BLOBS
        with translated("list", directory):
            paths = sorted(directory.iterdir()) if directory.is_dir() else []
        yield from (path for path in paths if _is_blob(path))


def _is_blob(path: Path) -> bool:
    try:
        Digest(path.name)
    except InvalidNameError:
        return False
    return path.is_file() and not path.is_symlink()
