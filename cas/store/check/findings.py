"""What a check finds, and for whom it matters; values and look-ups only."""

__all__ = ["Finding", "Hits", "Problem", "Severity"]

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cas.store.account.graph import Graph, Kind


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """Something is lost or wrong, or will be."""
    WARNING = "warning"
    """Nothing is lost, but something is left over or cannot be vouched for."""


class Problem(StrEnum):
    """What is wrong; stable names."""

    METADATA_LOST = "metadata-lost"
    BLOB_FILE_MISSING = "blob-file-missing"
    BLOB_SIZE = "blob-size"
    BLOB_CONTENT = "blob-content"
    BLOB_UNREADABLE = "blob-unreadable"
    BLOB_FILE_UNSAFE = "blob-file-unsafe"
    IMAGE_NAME = "image-name"
    IMAGE_CONTENT_MISSING = "image-content-missing"
    IMAGE_DOCUMENT = "image-document"
    IMAGE_LABELS = "image-labels"
    LAYER_NOT_DURABLE = "layer-not-durable"
    VOLUME = "volume"
    VOLUME_SNAPSHOT = "volume-snapshot"
    VOLUME_LEFTOVER = "volume-leftover"
    SUFFIXED_VOLUME = "suffixed-volume"
    FOREIGN_MOUNT = "foreign-mount"
    FOREIGN_FILE = "foreign-file"
    FILE_WITHOUT_RECORD = "file-without-record"
    STAGED_FILE = "staged-file"
    LEASE = "lease"
    INGEST = "ingest"
    INGEST_REMAINS = "ingest-remains"
    EXTRACTION = "extraction"
    UNPACK = "unpack"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of an invariant.

    Args:
        problem: Which kind.
        invariant: Its number in ARCHITECTURE.md.
        severity: How bad it is.
        object: Digest, reference, path or id of what is concerned.
        message: What is wrong, expected and actual.
        advice: The smallest thing that puts it right.
        fixable: Whether ``check --fix`` puts it right.
        images: References of the images that need the object.
        volumes: Names of the volumes that need the object.
    """

    problem: Problem
    invariant: int
    severity: Severity
    object: str
    message: str
    advice: str
    fixable: bool
    images: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


class Hits:
    """Finds the images and volumes that need an object.

    The edges are turned round at the first question; a healthy store never asks.

    Args:
        graph: The store.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._parents: dict[int, list[int]] | None = None

    def of(self, kind: Kind, name: str) -> dict[str, tuple[str, ...]]:
        """Give ``images`` and ``volumes`` for a finding about the object."""
        node = self._graph.find(kind, name, dangling=True)
        reached = set() if node is None else self._upwards([node])
        return {
            "images": self._names(reached, Kind.IMAGE),
            "volumes": self._names(reached, Kind.VOLUME),
        }

    def _upwards(self, nodes: Iterable[int]) -> set[int]:
        if self._parents is None:
            self._parents = {}
            for node in self._graph.nodes():
                for child in self._graph.children(node):
                    self._parents.setdefault(child, []).append(node)
        reached = set(nodes)
        stack = list(reached)
        while stack:
            for parent in self._parents.get(stack.pop(), ()):
                if parent not in reached:
                    reached.add(parent)
                    stack.append(parent)
        return reached

    def _names(self, nodes: Iterable[int], kind: Kind) -> tuple[str, ...]:
        graph = self._graph
        return tuple(sorted(graph.name(node) for node in nodes if graph.kind(node) is kind))
