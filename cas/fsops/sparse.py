"""Content of files with holes: read without the holes, hashed as if none were there or all.

The digest covers every page of 4 KiB that is not all zero, with its offset, and the file's size:
equal if and only if two files have the same bytes, however their holes lie. It costs what the data
costs, not what the size says. Everything here raises ``OSError``; callers translate.
"""

__all__ = ["PAGE_BYTES", "iter_data", "iter_runs"]

import errno
import os
from collections.abc import Iterator

from cas.model.limits import CHUNK_BYTES

PAGE_BYTES = 4096
_ZERO_PAGE = bytes(PAGE_BYTES)


def iter_data(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Read what a file holds beside its holes, as offsets and chunks of at most 1 MiB.

    Chunks begin and end at pages, the last one excepted, and none goes over a multiple of 1 MiB.
    """
    done = 0
    for start, end in _iter_extents(descriptor, size):
        position = max(done, start - start % PAGE_BYTES)
        done = max(done, min(size, end + -end % PAGE_BYTES))
        while position < done:
            chunk = os.pread(descriptor, _chunk_size(position, done), position)
            if not chunk:
                return  # it was cut meanwhile, which its status tells
            yield position, chunk
            position += len(chunk)


def _chunk_size(position: int, end: int) -> int:
    return min(end, position - position % CHUNK_BYTES + CHUNK_BYTES) - position


def _iter_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            if error.errno != errno.EINVAL:
                raise
            yield position, size  # a file system that knows no holes
            return
        end = min(size, os.lseek(descriptor, start, os.SEEK_HOLE))
        yield start, end
        position = end


def iter_runs(offset: int, chunk: bytes) -> Iterator[tuple[int, memoryview]]:
    """Give the longest stretches of a chunk without a page of zeros, with their offsets."""
    view = memoryview(chunk)
    tail = len(chunk) % PAGE_BYTES
    if _ZERO_PAGE not in chunk and (not tail or any(view[-tail:])):
        yield offset, view
        return
    start = 0
    for position in range(0, len(chunk), PAGE_BYTES):
        page = view[position : position + PAGE_BYTES]
        if not any(page) if len(page) < PAGE_BYTES else page == _ZERO_PAGE:
            if position > start:
                yield offset + start, view[start:position]
            start = position + len(page)
    if start < len(chunk):
        yield offset + start, view[start:]
