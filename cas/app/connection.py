"""The way to a store's containerd, and what all use cases have in common behind it."""

__all__ = ["backing_on", "connect", "iter_other_content"]

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cas.app.process import require_root
from cas.containerd.client import Containerd
from cas.fsops import processes
from cas.model.settings import Settings
from cas.store.backing import Backing, Clock
from cas.store.directories import require_directories
from cas.store.guard import VaultGuard
from cas.store.ports import BlobCatalogue

if TYPE_CHECKING:
    from cas.model.volume_record import VolumeRecord

_SYNCS_LAYERS = (1, 7, 14)
"""The first containerd that syncs what it unpacks."""


def connect(settings: Settings, *, writing: bool) -> Containerd:
    """Connect to the store's containerd, once vault and layout are as they must be.

    Raises as :meth:`cas.app.case.Case.open`.
    """
    require_root()
    if writing:
        VaultGuard.of(settings).check_writable()
        layout = settings.layout
        clear = (layout.clear_volumes.parent, layout.clear_volumes)
        require_directories(settings, (layout.vault, layout.case, layout.volumes, *clear))
    else:
        VaultGuard.of(settings).check_open()
    return Containerd.connect(
        settings.socket,
        namespace=settings.namespace,
        snapshotter=settings.snapshotter,
        wait_seconds=settings.wait_seconds,
    )


def backing_on(
    containerd: Containerd,
    settings: Settings,
    guard: VaultGuard,
    *,
    clock: Clock,
    volumes: "Callable[[], Iterator[VolumeRecord]]",
    on_ingested: Callable[[int], None],
) -> Backing:
    """Give what the use cases are made on."""
    return Backing(
        content=containerd.content,
        images=containerd.images,
        leases=containerd.leases,
        snapshots=containerd.snapshots,
        diff=containerd.diff,
        namespaces=containerd.namespaces,
        events=containerd.events,
        blobs_directory=containerd.blobs_directory,
        snapshotter=settings.snapshotter,
        namespace=settings.namespace,
        layout=settings.layout,
        limits=settings.limits,
        clock=clock,
        identity=processes.current(),
        volumes=volumes,
        daemon_syncs_layers=containerd.facts.version >= _SYNCS_LAYERS,
        check_writable=guard.check_writable,
        check_open=guard.check_open,
        on_ingested=on_ingested,
    )


def iter_other_content(
    containerd: Containerd, namespace: str
) -> Iterator[tuple[str, BlobCatalogue]]:
    """Give the content of all namespaces but one, which share the blobs' files."""
    for name in containerd.namespaces.iter_namespaces():
        if name != namespace:
            yield name, containerd.in_namespace(name).content
