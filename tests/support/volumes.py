"""A store wired for tests of unpacking and volumes, and images put straight into it.

Images go in through containerd's own calls, so that these tests do not depend on our import.
"""

__all__ = [
    "Recorder",
    "Store",
    "add_image",
    "open_store",
    "snapshot_directories",
    "volume_name",
]

import json
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cas.app import qemu_img
from cas.containerd.client import Containerd
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing, Clock
from cas.store.image.images import Images
from cas.store.layers.unpack import Unpack
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.volumes.kinds import VolumeKinds
from cas.volumes.records import iter_records
from cas.volumes.snapshots import VolumeSnapshots
from cas.volumes.volumes import Volumes
from tests.support.images import BuiltImage
from tests.support.stores import backing_for, utc_now

_LAYOUT = Layout(Path("/"))
_locks: deque[Path] = deque(maxlen=64)


def volume_name(generation: int = 0) -> VolumeName:
    """A volume name that was never used, with another lock than those before it.

    Each 256th shares its lock with any other: work on it waits as long as the other is held.
    """
    while True:
        name = VolumeName(uuid.uuid4(), generation)
        lock = _LAYOUT.lock("volume", str(name))
        if lock not in _locks:
            _locks.append(lock)
            return name


@dataclass(frozen=True)
class Store:
    """The parts that tests of volumes work with."""

    settings: Settings
    backing: Backing
    locks: Locks
    leasing: Leasing
    images: Images
    unpack: Unpack
    volumes: Volumes
    volume_snapshots: VolumeSnapshots

    def unpack_image(self, reference: str, **options: object) -> str:
        """Unpack under a lease of its own and give the top snapshot's name."""
        with self.leasing.hold("test") as lease:
            return str(self.unpack.unpack(self.images.resolve(reference), lease, **options))  # type: ignore[arg-type]

    def snapshots(self) -> set[str]:
        """Names of all snapshots."""
        return {info.name for info in self.backing.snapshots.iter_snapshots()}

    def assert_nothing_is_running(self) -> None:
        """No extraction, lease, reservation or hidden directory is left."""
        layout = self.settings.layout
        assert [name for name in self.snapshots() if "extract" in name] == []
        assert list(self.backing.leases.iter_leases()) == []
        for directory in (layout.volumes, layout.clear_volumes):
            hidden = [path for path in directory.iterdir() if path.name.startswith(".")]
            assert [path.name for path in hidden if path.name != ".disks"] == []
            records = {path.stem for path in directory.glob(".disks/*")}
            assert records <= {path.name for path in directory.iterdir()}
        assert not layout.unpacking.is_dir() or list(layout.unpacking.iterdir()) == []
        assert not layout.reservations.is_dir() or list(layout.reservations.iterdir()) == []


def open_store(
    containerd: Containerd,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    adapt: Callable[[Backing], Backing] = lambda backing: backing,
    workers: int = 3,
) -> Store:
    """Wire the use cases on a connection.

    Args:
        containerd: The connection.
        settings: Its settings.
        clock: The time.
        adapt: Changes what the use cases are given.
        workers: Layers unpacked at once.
    """
    layout = settings.layout
    layout.volumes.mkdir(parents=True, exist_ok=True)
    records = partial(iter_records, layout)
    backing = adapt(backing_for(containerd, settings, clock=clock, volumes=records))
    locks, leasing, images = Locks(layout), Leasing(backing), Images(backing)
    unpack = Unpack(backing, locks, workers=workers)
    layout.clear_volumes.mkdir(parents=True, exist_ok=True)
    kinds = VolumeKinds(backing, locks, leasing, qemu_img(settings))
    volumes = Volumes(backing, locks, leasing, images, unpack, kinds=kinds)
    snapshots = VolumeSnapshots(backing, locks, kinds)
    return Store(settings, backing, locks, leasing, images, unpack, volumes, snapshots)


def add_image(store: Store, image: BuiltImage, *, leave_out: tuple[str, ...] = ()) -> str:
    """Put an image of one platform into the store and give its reference."""
    content = store.backing.content
    manifest = json.loads(image.manifest)
    labels = {
        f"containerd.io/gc.ref.content.l.{number}": layer["digest"]
        for number, layer in enumerate(manifest["layers"])
    } | {"containerd.io/gc.ref.content.config": manifest["config"]["digest"]}
    with store.leasing.hold("test") as lease:
        for digest, data in image.blobs.items():
            if digest not in leave_out:
                own = labels if digest == image.digest else {}
                content.put(f"test-{digest}", lease.id, data, Digest.parse(digest), own)
        target = Descriptor(
            str(image.root["mediaType"]), Digest.parse(image.digest), int(image.root["size"])
        )
        store.backing.images.create(image.name, target, {})
    return image.name


def snapshot_directories(settings: Settings) -> set[Path]:
    """The snapshotter's directories on disk, those that nobody refers to included."""
    root = settings.layout.case / f"io.containerd.snapshotter.v1.{settings.snapshotter}"
    return set((root / "snapshots").iterdir())


@dataclass
class Recorder:
    """Progress that remembers what it was told, and may act on it."""

    on_start: Callable[[str], None] = lambda item: None
    started: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    advanced: int = 0

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        """An item begins."""
        self.started.append(item)
        self.on_start(item)

    def advance(self, action: str, item: str, amount: int) -> None:
        """It goes on."""
        self.advanced += amount

    def finish(self, action: str, item: str) -> None:
        """It ends."""
        self.finished.append(item)
