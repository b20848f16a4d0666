"""What uses the disk, by owner: allocated blocks, never counters that could drift.

Every part is walked now; what the file system says is used and the walk did not find is named as
unexplained instead of being spread over the others. Changes nothing.
"""

__all__ = [
    "CONTAINER",
    "DiskShares",
    "FileSystemUsage",
    "ImageUsage",
    "ObjectSizes",
    "StoreUsage",
    "Usage",
    "UsageEntry",
    "VolumeShare",
    "store_bytes",
]

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cas.errors import SnapshotNotFoundError
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes, iter_allocated
from cas.model.cancellation import check_operation
from cas.model.digest import Digest
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.account.files import allocated_size, blob_path, scan_blob_files
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory, OtherContent, take_inventory
from cas.store.account.parts import Part, content_root, parts
from cas.store.backing import Backing
from cas.store.transfers import idle_transfers

_RECLAIMABLE = "abandoned, prune removes it"
"""Part of what downloads take."""
CONTAINER = "container"
"""The format of a volume that is no disk."""
DiskShares = Callable[[], Iterable["VolumeShare"]]
"""Measures every disk volume."""

_ACTION = "measure"
_BY_RECORD = frozenset({"content", "snapshots", "ingests", "reserve"})
"""Parts that :func:`store_bytes` does not take from the disk."""


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """One line of the account.

    Args:
        owner: ``store``, ``volumes``, ``downloader``, ``verifier`` or ``others``.
        part: Of the owner, for example ``content``, ``snapshots`` or ``databases``.
        size: Allocated bytes.
        objects: How many blobs, snapshots or volumes; None where nothing is counted.
    """

    owner: str
    part: str
    size: int
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeShare:
    """What a volume takes.

    Args:
        name: Of the volume.
        own_bytes: What was written into it, since its last snapshot if it has any; of a disk, what
            its file takes, blocks that it shares with others included.
        shared_bytes: The image's layers below it, counted in the store's snapshots.
        snapshot_bytes: Layers that its snapshots froze.
        format: ``container``, or that of the disk.
        virtual_size: Bytes of the disk that a virtual machine sees; 0 for containers.
        clear: Outside the vault.
    """

    name: str
    own_bytes: int
    shared_bytes: int
    snapshot_bytes: int = 0
    format: str = CONTAINER
    virtual_size: int = 0
    clear: bool = False


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """An image's part of the store.

    Args:
        name: Its reference.
        content_bytes: Blobs that it reaches.
        snapshot_bytes: Unpacked layers that it reaches.
        unique_bytes: Of both, what no other image reaches.
    """

    name: str
    content_bytes: int
    snapshot_bytes: int
    unique_bytes: int


@dataclass(frozen=True, slots=True)
class FileSystemUsage:
    """One file system that the persist directory is spread over.

    Args:
        path: Where it is mounted.
        capacity: Bytes that it can hold.
        used: Bytes that are allocated, by its own word.
        free: Bytes that anybody may still allocate.
        explained: Bytes that the entries found there.
    """

    path: Path
    capacity: int
    used: int
    free: int
    explained: int

    @property
    def unexplained(self) -> int:
        """Bytes used by what is not below the persist directory.

        Also the file system's own tables, and files that are deleted but still open. Negative
        when files vanished during the walk.
        """
        return self.used - self.explained


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """The whole account.

    Args:
        entries: Every part; they add up to what is explained.
        volumes: By name.
        images: By name.
        file_systems: Usually one.
    """

    entries: tuple[UsageEntry, ...]
    volumes: tuple[VolumeShare, ...]
    images: tuple[ImageUsage, ...]
    file_systems: tuple[FileSystemUsage, ...]

    @property
    def size(self) -> int:
        """Allocated bytes of everything below the persist directory."""
        return sum(entry.size for entry in self.entries)


class ObjectSizes:
    """Allocated bytes of blobs and snapshots by node, measured at the first question.

    Args:
        backing: The store.
        inventory: Whose nodes are asked for.
    """

    def __init__(self, backing: Backing, inventory: Inventory) -> None:
        self._backing = backing
        self._inventory = inventory
        self._measured = inventory.graph.marks()

    def __call__(self, node: int) -> int:
        """Give the bytes that come free with the object; 0 for what is gone."""
        graph = self._inventory.graph
        if not self._measured[node]:
            check_operation()
            self._measured[node] = 1
            graph.set_size(node, self._measure(node))
        return graph.size(node)

    def _measure(self, node: int) -> int:
        graph = self._inventory.graph
        if not graph.exists(node):
            return 0
        if graph.kind(node) is Kind.SNAPSHOT:
            try:
                return self._backing.snapshots.usage(graph.name(node)).size
            except SnapshotNotFoundError:
                return 0
        if graph.kind(node) is not Kind.BLOB or node in self._inventory.shared:
            return 0
        directory = self._backing.blobs_directory
        if directory is None:
            return graph.size(node)
        return allocated_size(blob_path(directory, Digest.parse(graph.name(node)))) or 0


def store_bytes(backing: Backing, inventory: Inventory, sizes: ObjectSizes) -> int:
    """Give the bytes that a prune can have influence on, and the databases.

    Blobs, committed layers, uncommitted writes, containerd's databases and our own files; not what
    was written into volumes, nothing outside containerd's root, and not the reserve, which is
    there to be given up.
    """
    graph = inventory.graph
    volumes = {key for record in inventory.volumes.values() for key in record.snapshot_keys}
    objects = sum(
        sizes(node)
        for node in graph.nodes(Kind.BLOB, Kind.SNAPSHOT)
        if not (graph.kind(node) is Kind.SNAPSHOT and graph.name(node) in volumes)
    )
    writes = sum(graph.size(node) for node in inventory.ingests)
    files = sum(
        allocated_bytes(part.path)
        for part in parts(backing)
        if part.owner == "store" and part.name not in _BY_RECORD
    )
    return objects + writes + sum(inventory.orphans.values()) + files


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
            progress: Told the number of entries looked at, per part.

        Raises:
            UnavailableError: containerd does not answer.
            StorageError: A directory cannot be read.
            InterruptedOperationError: The operation that this belongs to was stopped, see
                :func:`cas.model.cancellation.begin_operation`.
        """
        backing = self._backing
        inventory = take_inventory(backing, now=backing.clock(), others=self._others)
        sizes = ObjectSizes(backing, inventory)
        volumes = tuple(_volume_shares(inventory, sizes))
        disks = tuple(self._disks())
        written = sum(volume.own_bytes + volume.snapshot_bytes for volume in volumes)
        explained: Counter[int] = Counter()
        first: dict[int, Path] = {}
        entries: list[UsageEntry] = []
        for part in parts(backing):
            device = part.path.lstat().st_dev
            size = _walk(part, progress)
            explained[device] += size
            first.setdefault(device, part.path)
            entries.extend(self._split(part, size, inventory, written, disks))
        entries.extend(self._unreachable(inventory, sizes, volumes, entries))
        return StoreUsage(
            tuple(_summed(entries)),
            tuple(sorted((*volumes, *disks), key=lambda volume: volume.name)),
            tuple(_image_usages(inventory, sizes)),
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
    item = str(part.path)
    progress.start(_ACTION, item, None, "files")
    try:
        size = 0
        for allocated in iter_allocated(part.path):
            check_operation()
            size += allocated
            progress.advance(_ACTION, item, 1)
        return size
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
