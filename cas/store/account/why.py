"""Why an object is still there: the chain of references that keeps it. Looks only."""

__all__ = ["Explanation", "Keeper", "Why"]

from collections.abc import Iterator
from dataclasses import dataclass

from cas.errors import InvalidNameError, NotFoundError
from cas.model.labels import LEASE_PID, LEASE_PURPOSE
from cas.model.reference import normalise_docker_name
from cas.store.account.graph import Graph, Kind
from cas.store.account.inventory import Inventory, LeaseUse, take_inventory
from cas.store.backing import Backing


@dataclass(frozen=True, slots=True)
class Keeper:
    """One link of a chain, or a root.

    Args:
        kind: ``volume``, ``image``, ``lease``, ``blob``, ``snapshot`` or ``ingest``.
        name: Of the object.
        reason: Why it stays by itself; empty on what only others keep.
    """

    kind: str
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What keeps one object.

    Args:
        kind: Of the object.
        name: Of the object.
        chain: A shortest chain from a root to the object, both included; empty if nothing keeps
            it, and the next collection takes it.
        roots: Everything that keeps it for its own sake, sorted by kind and name.
    """

    kind: str
    name: str
    chain: tuple[Keeper, ...]
    roots: tuple[Keeper, ...]

    @property
    def kept(self) -> bool:
        """Whether anything keeps it."""
        return bool(self.roots)


class Why:
    """Explains what keeps objects.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def explain(self, name: str) -> list[Explanation]:
        """Explain everything that bears a name.

        Args:
            name: A digest, an image reference, a snapshot's key or name, a volume, a lease or the
                ref of an unfinished write. One name may fit several objects: the lowest layer of an
                image is often a blob and a snapshot of the same digest.

        Returns:
            One explanation per object, at least one.

        Raises:
            NotFoundError: Nothing bears the name.
            UnavailableError: containerd does not answer.
        """
        inventory = take_inventory(self._backing, now=self._backing.clock())
        nodes = list(_find(inventory.graph, name))
        if not nodes:
            raise NotFoundError(
                f"no blob, image, snapshot, volume, lease or unfinished write is named {name!r}; "
                "'cas blob ls', 'cas image ls' and 'cas volume ls' list names",
                name=name,
            )
        reasons = dict(_reasons(inventory))
        return [_explain(inventory.graph, reasons, node) for node in nodes]


def _find(graph: Graph, name: str) -> Iterator[int]:
    for kind in Kind:
        node = graph.find(kind, name)
        if node is None and kind is Kind.IMAGE:
            node = _find_familiar(graph, name)
        if node is not None:
            yield node


def _find_familiar(graph: Graph, name: str) -> int | None:
    try:
        return graph.find(Kind.IMAGE, normalise_docker_name(name))
    except InvalidNameError:
        return None


def _reasons(inventory: Inventory) -> Iterator[tuple[int, str]]:
    """Give every root with what makes it one."""
    for node in inventory.rooted_snapshots:
        yield node, "its label protects it from collection"
    for node, pin in inventory.pins.items():
        said = ": ".join(part for part in (pin.owner, pin.reason) if part)
        yield node, f"pinned by {said}" if said else "pinned"
    for lease in inventory.leases:
        if not lease.expired:
            yield lease.node, _lease_reason(lease)
    for node, image in inventory.images.items():
        yield node, f"an image since {image.created:%F %R}; stays until removed or pruned"
    for node in inventory.volumes:
        yield node, "a volume; stays until removed"


def _lease_reason(lease: LeaseUse) -> str:
    labels = lease.info.labels
    if LEASE_PID not in labels:
        return "a lease of another client of containerd"
    work = f"{labels.get(LEASE_PURPOSE, 'work')} of process {labels[LEASE_PID]}"
    return f"{work}, which is dead: 'cas prune' drops it" if lease.dead else f"{work}, running"


def _explain(graph: Graph, reasons: dict[int, str], target: int) -> Explanation:
    keepers = graph.keepers(target)
    roots = [node for node in reasons if node in keepers]
    chain = graph.path(roots, target) or []

    def keeper(node: int) -> Keeper:
        return Keeper(str(graph.kind(node)), graph.name(node), reasons.get(node, ""))

    return Explanation(
        kind=str(graph.kind(target)),
        name=graph.name(target),
        chain=tuple(map(keeper, chain)),
        roots=tuple(
            sorted(map(keeper, roots), key=lambda root: (root.kind, root.name)),
        ),
    )
