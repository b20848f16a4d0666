"""What blobs and snapshots take on the disk, and what a prune can have influence on."""

__all__ = ["ObjectSizes", "store_bytes"]

from cas.errors import SnapshotNotFoundError
from cas.fsops.trees import allocated_bytes
from cas.model.cancellation import check_operation
from cas.model.digest import Digest
from cas.store.account.files import allocated_size, blob_path
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory
from cas.store.account.parts import parts
from cas.store.backing import Backing

_BY_RECORD = frozenset({"content", "snapshots", "ingests", "reserve"})
"""Parts that :func:`store_bytes` does not take from the disk."""


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
