"""What uses the disk, by owner: allocated blocks, never counters that could drift.

Every part is walked now; what the file system says is used and the walk did not find is named as
unexplained instead of being spread over the others. Changes nothing.
"""

__all__ = ["DiskShares", "Usage"]

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from cas.fsops.translation import translated
from cas.fsops.trees import iter_allocated
from cas.model.cancellation import check_operation, while_wanted
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.account.files import allocated_size, scan_blob_files
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory, OtherContent, take_inventory
from cas.store.account.parts import Part, content_root, parts
from cas.store.account.sharing import counted_twice
from cas.store.account.sizes import ObjectSizes
from cas.store.account.usage_values import (
    FileSystemUsage,
    ImageUsage,
    StoreUsage,
    UsageEntry,
    VolumeShare,
)
from cas.store.backing import Backing
from cas.store.transfers import idle_transfers

_T = TypeVar("_T")
_RECLAIMABLE = "abandoned, prune removes it"
"""Part of what downloads take."""
DiskShares = Callable[[], Iterable[VolumeShare]]
"""Measures every disk volume."""

_ACTION = "measure"


class Usage:
    """Accounts for the disk.

    Args:
        backing: The store.
        others: Content of the other namespaces of this containerd.
        disks: Measures the disk volumes, which are known to the layer above.
    """

    def __init__(
        self, backing: Backing, *, others: OtherContent = tuple, disks: DiskShares = tuple
    ) -> None:
        self._backing = backing
        self._others = others
        self._disks = disks

    def measure(self, *, progress: Progress = NO_PROGRESS) -> StoreUsage:
        """Walk everything below the persist directory once.

        Takes as long as reading every directory there; memory does not grow with the files.

        Args:
            progress: Told the number of things looked at: volumes, disks, entries per part, images.

        Raises:
            UnavailableError: containerd does not answer.
            StorageError: A directory cannot be read.
            InterruptedOperationError: The operation that this belongs to was stopped, see
                :func:`cas.model.cancellation.begin_operation`.
        """
        backing = self._backing
        inventory = take_inventory(backing, now=backing.clock(), others=self._others)
        sizes = ObjectSizes(backing, inventory)
        volumes = _collected(_volume_shares(inventory, sizes), "volumes", progress)
        disks = _collected(self._disks(), "disks", progress)
        with _told("shared blocks", "files", progress) as tell:
            twice = counted_twice(backing, tell)
        written = sum(volume.own_bytes + volume.snapshot_bytes for volume in volumes)
        explained: Counter[int] = Counter()
        first: dict[int, Path] = {}
        entries: list[UsageEntry] = []
        for part in parts(backing):
            device = part.path.lstat().st_dev
            size = _walk(part, progress) - twice.get(part.path, 0)
            explained[device] += size
            first.setdefault(device, part.path)
            entries.extend(self._split(part, size, inventory, written, disks))
        entries.extend(self._unreachable(inventory, sizes, volumes, entries))
        return StoreUsage(
            tuple(_summed(entries)),
            tuple(sorted((*volumes, *disks), key=lambda volume: volume.name)),
            _collected(_image_usages(inventory, sizes), "images", progress),
            tuple(_file_system(path, explained[device]) for device, path in first.items()),
        )

    def _split(
        self,
        part: Part,
        size: int,
        inventory: Inventory,
        written: int,
        disks: Sequence[VolumeShare],
    ) -> Iterator[UsageEntry]:
        """Tell apart what one directory holds of several owners."""
        if part.name == "content":
            yield from self._content(size, inventory)
        elif part.name == "snapshots":
            own = min(written, size)
            count = sum(1 for _ in inventory.graph.nodes(Kind.SNAPSHOT))
            layers = _own_layers(inventory)
            yield UsageEntry("volumes", "written", own, layers)
            yield UsageEntry("store", "snapshots", size - own, count - layers)
        elif part.path in (self._backing.layout.downloader, self._backing.layout.verifier):
            yield from self._transfers(part, size)
        else:
            clear = part.path == self._backing.layout.clear_volumes
            count = sum(disk.clear == clear for disk in disks if part.owner == "volumes")
            yield UsageEntry(part.owner, part.name, size, count or None)

    def _transfers(self, part: Part, size: int) -> Iterator[UsageEntry]:
        """Tell what is on its way from what nobody goes on with, which a prune gives back."""
        idle = [
            found.size
            for found in idle_transfers(self._backing.layout, self._backing.clock())
            if found.path.is_relative_to(part.path)
        ]
        yield UsageEntry(part.owner, part.name, max(0, size - sum(idle)))
        if idle:
            yield UsageEntry(part.owner, _RECLAIMABLE, sum(idle), len(idle))

    def _content(self, size: int, inventory: Inventory) -> Iterator[UsageEntry]:
        """Split the blobs directory into ours, other namespaces' and nobody's."""
        directory = self._backing.blobs_directory
        ours = count = elsewhere = 0
        digests = scan_blob_files(directory).digests if directory is not None else set()
        for raw in digests:
            allocated = allocated_size(directory / raw.hex()) if directory is not None else None
            if inventory.graph.find(Kind.BLOB, f"sha256:{raw.hex()}") is not None:
                ours += allocated or 0
                count += 1
            elif raw not in inventory.orphans:
                elsewhere += allocated or 0
        orphaned = sum(inventory.orphans.values())
        yield UsageEntry("store", "content", max(0, size - elsewhere - orphaned), count)
        if elsewhere:
            yield UsageEntry("others", "content of other namespaces", elsewhere)
        if orphaned:
            files = len(inventory.orphans)
            yield UsageEntry("store", "files without record", orphaned, files)

    def _unreachable(
        self,
        inventory: Inventory,
        sizes: ObjectSizes,
        volumes: Iterable[VolumeShare],
        entries: Iterable[UsageEntry],
    ) -> Iterator[UsageEntry]:
        """Account by record for what containerd keeps where this process cannot look."""
        seen = {entry.part for entry in entries}
        graph = inventory.graph
        if content_root(self._backing) is None:
            nodes = list(graph.nodes(Kind.BLOB))
            yield UsageEntry("store", "content", sum(map(sizes, nodes)), len(nodes))
        if "snapshots" not in seen:
            nodes = list(graph.nodes(Kind.SNAPSHOT))
            own = sum(volume.own_bytes + volume.snapshot_bytes for volume in volumes)
            layers = _own_layers(inventory)
            yield UsageEntry("volumes", "written", own, layers)
            yield UsageEntry(
                "store",
                "snapshots",
                max(0, sum(map(sizes, nodes)) - own),
                len(nodes) - layers,
            )


def _own_layers(inventory: Inventory) -> int:
    return sum(len(record.snapshot_keys) for record in inventory.volumes.values())


def _walk(part: Part, progress: Progress) -> int:
    size = 0
    with _told(str(part.path), "files", progress) as tell:
        for allocated in iter_allocated(part.path):
            check_operation()
            size += allocated
            tell()
    return size


def _collected(found: Iterable[_T], what: str, progress: Progress) -> tuple[_T, ...]:
    collected = []
    with _told(what, what, progress) as tell:
        for each in while_wanted(found):
            collected.append(each)
            tell()
    return tuple(collected)


@contextmanager
def _told(item: str, unit: str, progress: Progress) -> Iterator[Callable[[], None]]:
    """Tell that something is measured; gives what is to be called for each thing looked at."""
    progress.start(_ACTION, item, None, unit)
    try:
        check_operation()
        yield partial(progress.advance, _ACTION, item, 1)
    finally:
        progress.finish(_ACTION, item)


def _summed(entries: Iterable[UsageEntry]) -> Iterator[UsageEntry]:
    """Join entries of the same name; order is that of their first."""
    found: dict[tuple[str, str], UsageEntry] = {}
    for entry in entries:
        key = (entry.owner, entry.part)
        before = found.get(key)
        if before is None:
            found[key] = entry
        else:
            objects = (before.objects or 0) + (entry.objects or 0)
            found[key] = UsageEntry(*key, before.size + entry.size, objects or None)
    yield from found.values()


def _volume_shares(inventory: Inventory, sizes: ObjectSizes) -> Iterator[VolumeShare]:
    graph = inventory.graph
    for record in sorted(inventory.volumes.values(), key=lambda volume: volume.name):
        own = [
            node
            for key in record.snapshot_keys
            if (node := graph.find(Kind.SNAPSHOT, key)) is not None
        ]
        below = {each for node in own for each in _snapshots(inventory, node)} - set(own)
        writable = graph.find(Kind.SNAPSHOT, record.snapshot_key)
        yield VolumeShare(
            str(record.name),
            own_bytes=0 if writable is None else sizes(writable),
            shared_bytes=sum(map(sizes, below)),
            snapshot_bytes=sum(sizes(node) for node in own if node != writable),
        )


def _snapshots(inventory: Inventory, node: int) -> list[int]:
    graph = inventory.graph
    reached = graph.mark([node], graph.marks())
    return [each for each in reached if graph.kind(each) is Kind.SNAPSHOT]


def _image_usages(inventory: Inventory, sizes: ObjectSizes) -> Iterator[ImageUsage]:
    graph = inventory.graph
    kinds = {Kind.BLOB, Kind.SNAPSHOT}
    reached = {
        node: [
            each
            for each in graph.mark([node], graph.marks())
            if graph.exists(each) and graph.kind(each) in kinds
        ]
        for node in inventory.images
    }
    sharers = Counter(each for nodes in reached.values() for each in nodes)
    for node, image in sorted(inventory.images.items(), key=lambda item: item[1].name):
        totals: Counter[Kind] = Counter()
        unique = 0
        for each in reached[node]:
            totals[graph.kind(each)] += sizes(each)
            unique += sizes(each) if sharers[each] == 1 else 0
        yield ImageUsage(image.name, totals[Kind.BLOB], totals[Kind.SNAPSHOT], unique)


def _file_system(path: Path, explained: int) -> FileSystemUsage:
    with translated("measure the file system of", path):
        found = os.statvfs(path)
        device = path.lstat().st_dev
        path = next(
            (below for below, above in pairwise((path, *path.parents)) if _device(above) != device),
            Path(path.anchor),
        )
    return FileSystemUsage(
        path=path,
        capacity=found.f_blocks * found.f_frsize,
        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        explained=explained,
    )


def _device(path: Path) -> int:
    return path.lstat().st_dev
