"""The files in containerd's blobs directory, where this process can reach it; looks only."""

__all__ = ["BlobFileScan", "allocated_size", "blob_path", "scan_blob_files"]

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cas.fsops.translation import translated
from cas.model.digest import Digest

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCK_BYTES = 512


@dataclass(slots=True)
class BlobFileScan:
    """What lies in the blobs directory; about 110 bytes of memory per name.

    Args:
        digests: Raw digests that name an entry.
        foreign: Names that are no digest. One of them stops every collection of files.
    """

    digests: set[bytes] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)


def scan_blob_files(directory: Path) -> BlobFileScan:
    """List the directory; an absent one is empty, since containerd makes it late.

    Raises:
        StorageError: It cannot be read.
    """
    scan = BlobFileScan()
    with translated("list", directory):
        try:
            entries = os.scandir(directory)
        except FileNotFoundError:
            return scan
        with entries:
            for entry in entries:
                if _HEX.fullmatch(entry.name):
                    scan.digests.add(bytes.fromhex(entry.name))
                else:
                    scan.foreign.append(entry.name)
    scan.foreign.sort()
    return scan


def blob_path(directory: Path, digest: Digest) -> Path:
    """Where containerd keeps the blob's bytes."""
    return directory / digest.hex


def allocated_size(path: Path) -> int | None:
    """Give the allocated bytes of a regular file; None if there is none.

    Raises:
        StorageError: It cannot be inspected.
    """
    with translated("inspect", path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
    return found.st_blocks * _BLOCK_BYTES if stat.S_ISREG(found.st_mode) else None
