"""Locks on ranges of a file, as virtual machines take them on their disks."""

__all__ = ["has_record_lock"]

import fcntl
import os
import struct
from pathlib import Path

from cas.fsops.sole_use import open_to_read
from cas.fsops.translation import translated

_GET_OPEN_FILE_LOCK = 36
"""``F_OFD_GETLK``, which Python does not name."""
_LOCK = struct.Struct("hhqqi4x")


def has_record_lock(path: Path) -> bool:
    """Whether somebody holds a lock on any range of a file; a symbolic link is not followed.

    qemu holds one on every disk that it has open, unless it was told not to.

    Raises:
        DeniedError: The process may not open the file.
        StorageError: It does not exist, or another system call failed.
    """
    with translated("look at the locks of", path):
        descriptor = open_to_read(path)
        try:
            question = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, _GET_OPEN_FILE_LOCK, question)
        finally:
            os.close(descriptor)
    return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)
