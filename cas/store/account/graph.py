"""Who keeps whom: the store as a graph of images, blobs, snapshots, leases, ingests and volumes.

Pure: :mod:`cas.store.account.inventory` fills it and it knows no containerd. Its edges are what
containerd's collector follows (labels, parents, lease resources) and, beyond them, what a volume
needs. Where containerd versions differ, the edge is there: to believe that something is kept is
safe, since containerd itself decides what it collects. A node may exist in name only, because a
reference may dangle.

Memory: at most 400 bytes per object on top of an edge's 40; a test measures it.
"""

__all__ = ["Graph", "Kind", "Reference", "references", "referrers"]

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from cas.model.labels import GC_REF_CONTENT, GC_REF_SNAPSHOT

_GC_REF_IMAGE = "containerd.io/gc.ref.image"
_GC_BACK_REF = "containerd.io/gc.bref."
_NOTHING: tuple[int, ...] = ()


class Kind(StrEnum):
    """What a node stands for."""

    VOLUME = "volume"
    IMAGE = "image"
    LEASE = "lease"
    INGEST = "ingest"
    SNAPSHOT = "snapshot"
    BLOB = "blob"


Reference = tuple[Kind, str]


def references(labels: Mapping[str, str], snapshotter: str) -> Iterator[Reference]:
    """Give what an object's labels keep, as containerd's collector reads them.

    Args:
        labels: Of a blob, a snapshot or an image.
        snapshotter: References to snapshots of others are left out.

    Source: containerd, docs/garbage-collection.md and metadata/gc.go.
    """
    for key, value in labels.items():
        if _names(key, GC_REF_CONTENT):
            yield Kind.BLOB, value
        elif _names(key, f"{GC_REF_SNAPSHOT}.{snapshotter}", separators="/"):
            yield Kind.SNAPSHOT, value
        elif _names(key, _GC_REF_IMAGE):
            yield Kind.IMAGE, value


def referrers(labels: Mapping[str, str], snapshotter: str) -> Iterator[Reference]:
    """Give what an object asks to be kept by ("back references", containerd 2.2 and later)."""
    for key, value in labels.items():
        if not key.startswith(_GC_BACK_REF):
            continue
        if _names(key, f"{_GC_BACK_REF}content"):
            yield Kind.BLOB, value
        elif _names(key, f"{_GC_BACK_REF}image"):
            yield Kind.IMAGE, value
        elif _names(key, f"{_GC_BACK_REF}snapshot.{snapshotter}", separators="/"):
            yield Kind.SNAPSHOT, value


def _names(key: str, prefix: str, *, separators: str = "./") -> bool:
    return key.startswith(prefix) and (key == prefix or key[len(prefix)] in separators)


class Graph:
    """Nodes by number, in arrays; edges from the one that keeps to the one that is kept."""

    def __init__(self) -> None:
        self._numbers: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
        self._names: list[str] = []
        self._kinds: list[Kind] = []
        self._sizes = array("q")
        self._exists = bytearray()
        self._children: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(
        self,
        kind: Kind,
        name: str,
        *,
        size: int = 0,
        keeps: Iterable[Reference] = (),
        kept_by: Iterable[Reference] = (),
    ) -> int:
        """Enter an object that exists; what it refers to need not be there yet.

        Args:
            kind: Of the object.
            name: Unique within the kind.
            size: Bytes that come free with it.
            keeps: Objects that live as long as this one.
            kept_by: Objects that this one lives as long as.

        Returns:
            The object's number.
        """
        node = self._node(kind, name)
        self._exists[node] = 1
        self._sizes[node] = size
        children = tuple(self._node(*reference) for reference in keeps)
        if children:
            self._children[node] += children
        for reference in kept_by:
            self._children[self._node(*reference)] += (node,)
        return node

    def _node(self, kind: Kind, name: str) -> int:
        numbers = self._numbers[kind]
        node = numbers.get(name)
        if node is None:
            node = numbers[name] = len(self._names)
            self._names.append(name)
            self._kinds.append(kind)
            self._sizes.append(0)
            self._exists.append(0)
            self._children.append(_NOTHING)
        return node

    def find(self, kind: Kind, name: str, *, dangling: bool = False) -> int | None:
        """Give the number of an object that exists; with ``dangling`` also of a mere name."""
        node = self._numbers[kind].get(name)
        return node if node is not None and (dangling or self._exists[node]) else None

    def kind(self, node: int) -> Kind:
        """What the node stands for."""
        return self._kinds[node]

    def name(self, node: int) -> str:
        """The object's name within its kind."""
        return self._names[node]

    def size(self, node: int) -> int:
        """Bytes that come free with the object."""
        return self._sizes[node]

    def set_size(self, node: int, size: int) -> None:
        """Correct the bytes that come free with the object."""
        self._sizes[node] = size

    def exists(self, node: int) -> bool:
        """Whether the object is there, not merely referred to."""
        return bool(self._exists[node])

    def children(self, node: int) -> tuple[int, ...]:
        """What the object keeps."""
        return self._children[node]

    def nodes(self, *kinds: Kind) -> Iterator[int]:
        """Stream the objects that exist; of the given kinds only, if any is given."""
        wanted = frozenset(kinds or Kind)
        for node, kind in enumerate(self._kinds):
            if self._exists[node] and kind in wanted:
                yield node

    def marks(self) -> bytearray:
        """Give a new set of marks, all clear, for :meth:`mark`."""
        return bytearray(len(self._names))

    def mark(self, roots: Iterable[int], marks: bytearray) -> list[int]:
        """Mark everything that the roots keep, themselves included.

        Args:
            roots: Where to begin.
            marks: What is set there already is passed by, with all that it keeps.

        Returns:
            The nodes marked by this call, those that exist in name only included.
        """
        fresh: list[int] = []
        stack = [root for root in roots if not marks[root]]
        while stack:
            node = stack.pop()
            if marks[node]:
                continue
            marks[node] = 1
            fresh.append(node)
            stack.extend(child for child in self._children[node] if not marks[child])
        return fresh

    def path(self, roots: Iterable[int], target: int) -> list[int] | None:
        """Find a shortest chain from one of the roots to the target, both included.

        Returns:
            None if none of the roots keeps the target.
        """
        before: dict[int, int] = {root: root for root in roots}
        queue = deque(before)
        while queue:
            node = queue.popleft()
            if node == target:
                return _walk_back(before, node)
            for child in self._children[node]:
                if child not in before:
                    before[child] = node
                    queue.append(child)
        return None

    def keepers(self, target: int) -> set[int]:
        """Give every node from which the target can be reached, itself included.

        Reads all edges once per generation of keepers: made for one question, not for many.
        """
        found = {target}
        grown = True
        while grown:
            size = len(found)
            for node, children in enumerate(self._children):
                if node not in found and not found.isdisjoint(children):
                    found.add(node)
            grown = len(found) > size
        return found


def _walk_back(before: Mapping[int, int], node: int) -> list[int]:
    chain = [node]
    while before[node] != node:
        node = before[node]
        chain.append(node)
    return chain[::-1]
