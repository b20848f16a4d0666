"""Blocks that a file shares with others, where the file system can do that (reflinks)."""

__all__ = ["Extent", "iter_shared_extents", "shared_bytes"]

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from cas.fsops.sole_use import open_to_read
from cas.fsops.translation import translated

Extent = tuple[int, int]
"""Where bytes lie on their device, and how many; of two extents that overlap so do the bytes."""

_FS_IOC_FIEMAP = 0xC020660B
"""_IOWR('f', 11, struct fiemap). Source: include/uapi/linux/fiemap.h."""
_HEAD = struct.Struct("=QQLLLL")
_EXTENT = struct.Struct("=QQQQQLLLL")
_PER_CALL = 256
_LAST = 0x1
_ENCODED = 0x8
"""Compressed or encrypted by the file system: its length says nothing of the blocks."""
_SHARED = 0x2000
_TO_THE_END = 2**64 - 1

_NO_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO})
_NO_EXTENTS = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EBADR})


def shared_bytes(path: Path) -> int:
    """Measure what a file shares; raises as :func:`iter_shared_extents`."""
    return sum(size for _, size in iter_shared_extents(path))


def iter_shared_extents(path: Path) -> Iterator[Extent]:
    """Give the extents of a regular file that others have too; none where nothing can be shared.

    What was written a moment ago and has no place yet is shared by nobody. A file that is gone has
    no extents.

    Raises:
        StorageError: It cannot be opened or asked.
    """
    with translated("ask for the extents of", path):
        try:
            descriptor = open_to_read(path)
        except OSError as error:
            if error.errno in _NO_FILE:
                return
            raise
        try:
            for place, size, flags in _iter_extents(descriptor):
                if flags & _SHARED and not flags & _ENCODED:
                    yield place, size
        except OSError as error:
            if error.errno not in _NO_EXTENTS:
                raise
        finally:
            os.close(descriptor)


def _iter_extents(descriptor: int) -> Iterator[tuple[int, int, int]]:
    position = 0
    while True:
        buffer = bytearray(_HEAD.size + _PER_CALL * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, position, _TO_THE_END - position, 0, 0, _PER_CALL, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer, True)  # noqa: FBT003 - positional only
        found = _HEAD.unpack_from(buffer)[3]
        flags = _LAST
        for number in range(found):
            logical, place, size, _, _, flags, *_ = _EXTENT.unpack_from(
                buffer, _HEAD.size + number * _EXTENT.size
            )
            yield place, size, flags
            position = logical + size
        if flags & _LAST:
            return
