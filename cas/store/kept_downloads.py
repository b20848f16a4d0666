"""Verified files that no transfer brought, and that stay until they are in the store.

What older software had downloaded and verified has nobody who would ask for it again. A small file
per digest says so; without it the file counts as a transfer's leftover.
"""

__all__ = ["is_kept", "iter_kept", "keep", "let_go"]

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cas.errors import InvalidNameError
from cas.fsops.durable import make_directory, remove_file, write_file
from cas.fsops.translation import translated
from cas.model.digest import Digest
from cas.model.layout import Layout


def keep(layout: Layout, digest: Digest) -> None:
    """Let a verified file stay from now on, durably; it need not be there yet. Idempotent.

    Raises:
        NoSpaceError: No room.
        StorageError: Any other failed system call.
    """
    for directory in (layout.upgrade, layout.kept_downloads):
        make_directory(directory, mode=0o700)
    if not is_kept(layout, digest):
        write_file(layout.kept_downloads / digest.hex, b"")


def let_go(layout: Layout, digest: Digest) -> None:
    """Let a file be removed as any other, durably. Idempotent.

    Raises:
        StorageError: A system call failed.
    """
    if layout.kept_downloads.is_dir():
        remove_file(layout.kept_downloads / digest.hex)


def is_kept(layout: Layout, digest: Digest) -> bool:
    """Whether a verified file is to stay."""
    return (layout.kept_downloads / digest.hex).exists()


def iter_kept(layout: Layout) -> Iterator[tuple[Digest, Path]]:
    """Give what is to stay, by digest, and where it is if it is.

    Raises:
        StorageError: The directory cannot be listed.
    """
    with translated("list", layout.kept_downloads):
        if not layout.kept_downloads.is_dir():
            return
        names = sorted(path.name for path in layout.kept_downloads.iterdir())
    for name in names:
        with suppress(InvalidNameError):
            yield Digest(name), layout.verified / name
