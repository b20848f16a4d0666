"""What a prune would remove, why, and what that frees; pure.

Two ideas carry it. A reference that goes (an image's name, a pin, the lease of a dead process) is
told apart from an object that then goes because nothing refers to it. And the bytes of an object
count for the last of the references that keep it: with the references sorted by last use, dropping
the oldest ones frees exactly what is counted for them, whatever they share with each other.
"""

__all__ = ["Action", "Goal", "Holder", "PlannedObject", "PrunePlan", "SizeOf", "make_plan"]

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import chain

from cas.model.labels import KEEP
from cas.model.records import ImageRecord
from cas.model.sizes import format_size
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory, abandoned_ingests
from cas.store.filters import last_used
from cas.store.prune.selection import Selection
from cas.store.transfers import TransferFile

_HOLDERS = 10
"""Of the keepers of space that many are named, largest first."""


class Action(StrEnum):
    """What happens to a planned object."""

    REMOVE = "remove"
    """The record is removed by us."""
    UNPIN = "unpin"
    """The blob loses its pin."""
    COLLECT = "collect"
    """containerd's collector takes it, since nothing refers to it any more."""


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One line of a plan.

    Args:
        kind: ``image``, ``blob``, ``snapshot``, ``lease``, ``ingest``, ``download`` for a file on
            its way into the store, or ``file`` for a blob's file that no record knows.
        name: Of the object.
        action: What happens to it.
        reason: Why, for people.
        size: Allocated bytes that come free with this object alone.
        image: The record as it was looked at; only on images.
    """

    kind: str
    name: str
    action: Action
    reason: str
    size: int = 0
    image: ImageRecord | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps bytes that a missed goal would need.

    Args:
        kind: ``volume``, ``image``, ``lease``, ``blob`` (pinned), ``snapshot`` or ``other``.
        name: Of the holder.
        size: Bytes that it keeps and no larger holder before it.
        reason: Why it stays, and what would let go of it.
    """

    kind: str
    name: str
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class Goal:
    """What a prune is to achieve; both may be given.

    Args:
        keep_at_most: Bytes that the store may take, data written into volumes not counted.
        min_free: Bytes that are to be free on its file system.
    """

    keep_at_most: int | None = None
    min_free: int | None = None


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """Everything that a prune will do.

    Args:
        made: When the store was looked at, aware UTC; what was touched later stays.
        objects: References first, then what goes with them.
        needed: Bytes that the goal asks to free; None without a goal.
        holders: The largest keepers of the rest, when the goal is out of reach.
    """

    made: datetime
    objects: tuple[PlannedObject, ...]
    needed: int | None = None
    holders: tuple[Holder, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that come free."""
        return sum(planned.size for planned in self.objects)

    @property
    def missing(self) -> int:
        """Bytes by which the goal is missed; 0 when it is reached or there is none."""
        return max(0, (self.needed or 0) - self.size)


SizeOf = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A reference that may go; counted for it are the nodes that it is the last to keep."""

    node: int
    when: datetime
    nodes: Sequence[int] = ()
    size: int = 0


def make_plan(
    inventory: Inventory,
    selection: Selection,
    *,
    now: datetime,
    size_of: SizeOf,
    needed: int | None = None,
    downloads: Iterable[TransferFile] = (),
) -> PrunePlan:
    """Decide what goes.

    Args:
        inventory: The store; its pins were selected when it was taken.
        selection: Which images may go.
        now: The current time.
        size_of: Allocated bytes of a blob's or snapshot's node; asked for what may go, and for
            everything when the goal is missed.
        needed: Bytes to free, least recently used first; None to let go of all that is selected.
        downloads: What is on its way into the store and nobody goes on with.
    """
    kept = _kept_images(inventory, selection)
    movable = [*_movable_images(inventory, kept), *_movable_pins(inventory)]
    marks = inventory.graph.marks()
    inventory.graph.mark(_other_roots(inventory, movable), marks)
    candidates = _counted(inventory, movable, marks, size_of)
    leftovers = [
        *_leftovers(inventory, now),
        *map(_download, downloads),
        *_collected(inventory, _unmarked(inventory, marks), "nothing refers to it", size_of),
    ]
    chosen = _choose(candidates, sum(planned.size for planned in leftovers), needed)
    dropped = {candidate.node for candidate in chosen}
    freed = {node for candidate in chosen for node in candidate.nodes}
    references = (
        _reference(inventory, candidate, now, size_of(candidate.node) if pinned else 0)
        for candidate in chosen
        for pinned in [candidate.node in freed]
    )
    going = (
        _collected(
            inventory,
            # An unpinned blob is in the plan already, with its bytes.
            (node for node in candidate.nodes if node not in dropped),
            _because(inventory, candidate),
            size_of,
        )
        for candidate in chosen
    )
    objects = (*references, *leftovers, *chain.from_iterable(going))
    plan = PrunePlan(now, objects, needed)
    if not plan.missing:
        return plan
    return PrunePlan(now, objects, needed, _holders(inventory, kept, dropped, size_of))


def _kept_images(inventory: Inventory, selection: Selection) -> dict[int, str]:
    """Give the images that stay, each with the reason."""
    by_name = {volume.image: volume for volume in inventory.volumes.values()}
    by_digest = {volume.root_digest: volume for volume in inventory.volumes.values()}
    working = _leased(inventory)
    kept = {}
    for node, image in inventory.images.items():
        volume = by_name.get(image.name) or by_digest.get(image.target.digest)
        if volume is not None:
            kept[node] = f"volume {volume.name} was prepared from it"
        elif working and not working.isdisjoint(_documents(inventory, node)):
            kept[node] = "running work holds a lease on it"
        elif KEEP in image.labels:
            kept[node] = f"it has the label {KEEP}"
        elif selection.images is None or not selection.images.matches(image):
            kept[node] = "the filters do not select it"
    return kept


def _leased(inventory: Inventory) -> set[int]:
    """Give what running work holds by name; what that keeps in turn is not asked for."""
    graph = inventory.graph
    alive = (lease.node for lease in inventory.leases if lease.alive)
    return {child for lease in alive for child in graph.children(lease)}


def _documents(inventory: Inventory, image: int) -> Iterator[int]:
    """Give the image's indexes, manifests and configs; its layers it may share with others."""
    graph = inventory.graph
    yield from graph.children(image)
    for node in graph.mark([image], graph.marks()):
        if graph.kind(node) is Kind.BLOB and graph.children(node):
            yield node


def _movable_images(inventory: Inventory, kept: Mapping[int, str]) -> Iterator[_Candidate]:
    for node, image in inventory.images.items():
        if node not in kept:
            yield _Candidate(node, last_used(image))


def _movable_pins(inventory: Inventory) -> Iterator[_Candidate]:
    for node, pin in inventory.pins.items():
        if pin.selected and not pin.sentinel:
            yield _Candidate(node, pin.updated)


def _other_roots(inventory: Inventory, movable: Iterable[_Candidate]) -> Iterator[int]:
    nodes = {candidate.node for candidate in movable}
    return (root for root in inventory.roots() if root not in nodes)


def _counted(
    inventory: Inventory, movable: Iterable[_Candidate], marks: bytearray, size_of: SizeOf
) -> list[_Candidate]:
    """Sort by last use, oldest first, and count for each what goes with it.

    Marks everything counted. What other roots keep is no candidate: dropping it frees nothing.
    """
    counted = []
    useful = (candidate for candidate in movable if not marks[candidate.node])
    newest_first = sorted(
        useful, key=lambda item: (item.when, inventory.graph.name(item.node)), reverse=True
    )
    for candidate in newest_first:
        nodes = [
            node
            for node in inventory.graph.mark([candidate.node], marks)
            if _takes_space(inventory, node)
        ]
        size = sum(size_of(node) for node in nodes)
        counted.append(_Candidate(candidate.node, candidate.when, nodes, size))
    return counted[::-1]


def _takes_space(inventory: Inventory, node: int) -> bool:
    graph = inventory.graph
    return graph.exists(node) and graph.kind(node) in {Kind.BLOB, Kind.SNAPSHOT}


def _unmarked(inventory: Inventory, marks: bytearray) -> Iterator[int]:
    return (node for node in inventory.graph.nodes(Kind.BLOB, Kind.SNAPSHOT) if not marks[node])


def _choose(
    candidates: Sequence[_Candidate], size: int, needed: int | None
) -> Sequence[_Candidate]:
    """Take all, or the oldest until with ``size`` the need is met."""
    if needed is None:
        return candidates
    for count, candidate in enumerate(candidates):
        if size >= needed:
            return candidates[:count]
        size += candidate.size
    return candidates


def _leftovers(inventory: Inventory, now: datetime) -> Iterator[PlannedObject]:
    """Give what no reference keeps but which is no blob or snapshot of a record."""
    for lease in inventory.leases:
        if not lease.alive:
            reason = "its process is dead" if lease.dead else "its time is over"
            yield PlannedObject("lease", lease.info.id, Action.REMOVE, reason)
    for node, ingest in inventory.ingests.items():
        if ingest.ref in inventory.orphaned_ingests:
            size = inventory.graph.size(node)
            yield PlannedObject(
                "ingest", ingest.ref, Action.COLLECT, "the process of its lease is dead", size
            )
    for node, ingest in abandoned_ingests(inventory, now):
        reason = f"no lease holds it and nobody went on with it since {ingest.updated:%F %R}"
        size = inventory.graph.size(node)
        yield PlannedObject("ingest", ingest.ref, Action.REMOVE, reason, size)
    for hexadecimal, size in sorted(inventory.orphans.items()):
        reason = "a blob's file of which there is no record"
        yield PlannedObject("file", hexadecimal.hex(), Action.COLLECT, reason, size)


def _download(file: TransferFile) -> PlannedObject:
    reason = f"nobody went on with it since {file.updated:%F %R}"
    return PlannedObject("download", str(file.path), Action.REMOVE, reason, file.size)


def _collected(
    inventory: Inventory, nodes: Iterable[int], reason: str, size_of: SizeOf
) -> Iterator[PlannedObject]:
    graph = inventory.graph
    for node in nodes:
        yield PlannedObject(
            graph.kind(node), graph.name(node), Action.COLLECT, reason, size_of(node)
        )


def _because(inventory: Inventory, candidate: _Candidate) -> str:
    graph = inventory.graph
    return f"last kept by {graph.kind(candidate.node)} {graph.name(candidate.node)}"


def _reference(
    inventory: Inventory, candidate: _Candidate, now: datetime, own: int
) -> PlannedObject:
    node, graph = candidate.node, inventory.graph
    image = inventory.images.get(node)
    if image is None:
        pin = inventory.pins[node]
        reason = f"selected pin{_said(pin.owner, pin.reason)}, {_age(now, candidate.when)}"
        return PlannedObject("blob", graph.name(node), Action.UNPIN, reason, own)
    reason = f"no volume uses it, {_age(now, candidate.when)}, frees {format_size(candidate.size)}"
    return PlannedObject("image", image.name, Action.REMOVE, reason, 0, image)


def _said(owner: str, reason: str) -> str:
    text = ": ".join(part for part in (owner, reason) if part)
    return f" of {text}" if text else ""


def _age(now: datetime, when: datetime) -> str:
    return f"last used {max(0, (now - when).days)} days ago"


def _holders(
    inventory: Inventory, kept: Mapping[int, str], dropped: set[int], size_of: SizeOf
) -> tuple[Holder, ...]:
    graph, marks = inventory.graph, inventory.graph.marks()
    found = []
    for root in inventory.roots():
        if root in dropped:
            continue
        nodes = [node for node in graph.mark([root], marks) if _takes_space(inventory, node)]
        size = sum(size_of(node) for node in nodes)
        if size:
            reason = _why_it_stays(inventory, kept, root)
            found.append(Holder(graph.kind(root), graph.name(root), size, reason))
    return tuple(sorted(found, key=lambda holder: -holder.size)[:_HOLDERS])


def _why_it_stays(inventory: Inventory, kept: Mapping[int, str], root: int) -> str:
    kind = inventory.graph.kind(root)
    if kind is Kind.VOLUME:
        return "a volume and the layers below it; remove the volume to free them"
    if kind is Kind.IMAGE:
        return kept.get(root, "used more recently than what goes")
    if kind is Kind.LEASE:
        return "running work; try again when it has ended"
    if kind is Kind.BLOB:
        pin = inventory.pins[root]
        return f"pinned{_said(pin.owner, pin.reason)}; remove it, or select it by a filter"
    return "a snapshot that its maker protects from collection"
