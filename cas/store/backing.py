"""Everything a use case of the store works with, handed over as one value.

Wired by ``cas.app``; nothing here does anything.
"""

__all__ = ["Backing", "Clock", "guard_nothing", "ignore_size"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cas.fsops.processes import ProcessIdentity
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.model.volume_record import VolumeRecord
from cas.store.ports import (
    ContentStore,
    Differ,
    EventPublisher,
    ImageStore,
    Leases,
    NamespaceStore,
    SnapshotStore,
)

Clock = Callable[[], datetime]
"""Tells the time as an aware UTC datetime."""


def guard_nothing() -> None:
    """Guard nothing."""


def ignore_size(size: int) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class Backing:
    """The parts of one store.

    Args:
        content: Content of one namespace.
        images: Its image records.
        leases: Its leases.
        snapshots: Its snapshots, of one snapshotter.
        diff: Unpacks layers.
        namespaces: Labels of all namespaces.
        events: Told what happens.
        blobs_directory: containerd's ``blobs/sha256`` where this process reaches it, else None.
        snapshotter: Name of the snapshotter.
        layout: The paths of the store.
        limits: Limits against hostile input.
        clock: The time.
        identity: This process, as leases name their owner.
        volumes: Streams the records of all container volumes.
        daemon_syncs_layers: Whether containerd syncs unpacked files when it is asked to.
        namespace: The namespace's name.
        check_writable: Raises where nothing may be written, as when the vault is locked.
        check_open: Raises where nothing can be read, as when the vault is locked.
        on_ingested: Told the size of each blob that this process puts into the store.
    """

    content: ContentStore
    images: ImageStore
    leases: Leases
    snapshots: SnapshotStore
    diff: Differ
    namespaces: NamespaceStore
    events: EventPublisher
    blobs_directory: Path | None
    snapshotter: str
    layout: Layout
    limits: Limits
    clock: Clock
    identity: ProcessIdentity
    volumes: Callable[[], Iterator[VolumeRecord]]
    daemon_syncs_layers: bool
    namespace: str
    check_writable: Callable[[], object] = guard_nothing
    check_open: Callable[[], object] = guard_nothing
    on_ingested: Callable[[int], None] = ignore_size
