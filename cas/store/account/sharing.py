"""Blocks that several files share are there once, and the account counts them once.

Of blobs and disks only, since nothing else of ours is made by sharing; they are counted where the
content is if a blob has them, else with the volumes.
"""

__all__ = ["SharedBlocks", "counted_twice"]

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from cas.fsops.extents import Extent, iter_shared_extents
from cas.fsops.translation import translated
from cas.model.cancellation import while_wanted
from cas.model.layout import Layout
from cas.store.backing import Backing

_EXTENTS = 100_000
"""About 20 MB; what a device shares in more pieces than that is counted with each file."""


class SharedBlocks:
    """Which blocks of one device were counted.

    Args:
        limit: How many extents are remembered.
    """

    def __init__(self, limit: int = _EXTENTS) -> None:
        self._limit = limit
        self._ranges: list[tuple[int, int]] = []

    def add(self, extents: Iterable[Extent]) -> int:
        """Count extents; gives how many of their bytes had been counted, or come twice in them."""
        before = self._bytes()
        added = [(place, place + size) for place, size in islice(extents, self._room())]
        self._ranges = list(_joined(sorted([*self._ranges, *added])))
        return sum(end - start for start, end in added) - (self._bytes() - before)

    def _room(self) -> int:
        return max(0, self._limit - len(self._ranges))

    def _bytes(self) -> int:
        return sum(end - start for start, end in self._ranges)


def counted_twice(backing: Backing, tell: Callable[[], None]) -> Mapping[Path, int]:
    """Measure what lies in the directories of disks and is also elsewhere in the account.

    Args:
        backing: The store.
        tell: Called for each file that was looked at.

    Returns:
        Bytes by directory; none where the file system cannot share blocks.

    Raises:
        StorageError: A directory or file cannot be read.
    """
    layout = backing.layout
    disks = {
        layout.disk_directory(clear=clear): list(
            islice(_shared(_disk_files(layout, clear=clear), tell), _EXTENTS)
        )
        for clear in (False, True)
    }
    if not any(disks.values()):
        return {}
    counted: defaultdict[int, SharedBlocks] = defaultdict(SharedBlocks)
    content = backing.blobs_directory
    if content is not None and content.is_dir():
        counted[_device(content)].add(_shared(_files(content), tell))
    return {
        directory: counted[_device(directory)].add(extents)
        for directory, extents in disks.items()
        if extents
    }


def _shared(files: Iterable[Path], tell: Callable[[], None]) -> Iterator[Extent]:
    for path in while_wanted(files):
        yield from iter_shared_extents(path)
        tell()


def _disk_files(layout: Layout, *, clear: bool) -> Iterator[Path]:
    """Give disks, those on their way, and what their snapshots have copied."""
    yield from _files(layout.disk_directory(clear=clear))
    for path, mode in _entries(layout.disk_records(clear=clear)):
        if stat.S_ISDIR(mode):
            yield from _files(path)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path, mode in _entries(directory) if stat.S_ISREG(mode))


def _entries(directory: Path) -> Iterator[tuple[Path, int]]:
    with translated("list", directory):
        try:
            entries = os.scandir(directory)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                try:
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_mode
                except FileNotFoundError:
                    continue


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Make one of each ranges that meet; they come in order."""
    start, end = -1, -1
    for first, last in ranges:
        if first > end:
            if end > start:
                yield start, end
            start, end = first, last
        end = max(end, last)
    if end > start:
        yield start, end


def _device(path: Path) -> int:
    return path.lstat().st_dev
