"""Operations on a store, to be done any number of times, always with everything still to do."""

__all__ = ["LOOKS", "OPERATIONS", "Workshop"]

import io
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from cas.app import Case
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.volume_name import VolumeName
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import FileSource
from tests.support.images import BuiltImage, layered_image

_MIB = 1024 * 1024

Do = Callable[[], object]


class Workshop:
    """Makes input that no store has seen.

    Args:
        case: The store.
        place: A directory for files.
    """

    def __init__(self, case: Case, place: Path) -> None:
        self.case = case
        self.place = place

    def file(self, size: int) -> Path:
        """A file of new content."""
        path = self.place / uuid.uuid4().hex
        path.write_bytes(uuid.uuid4().bytes * (size // 16))
        return path

    def image(self) -> BuiltImage:
        """A new small image of three layers, not in the store."""
        name = uuid.uuid4().hex
        return layered_image(3, name=f"example.com/test/{name}:1", seed=name)

    def archive(self) -> Path:
        """A new image as a file."""
        return self.image().write_oci_tar(self.place / f"{uuid.uuid4().hex}.tar")

    def imported(self) -> str:
        """A new image in the store."""
        [record] = self.case.images.import_archive(self.archive())
        return record.name

    def prepared(self) -> VolumeName:
        """A new volume."""
        name = VolumeName(uuid.uuid4(), 0)
        self.case.volumes.prepare(name, self.imported())
        return name


def _ingest(shop: Workshop, way: Way) -> Do:
    path = shop.file(2 * _MIB)

    def ingest() -> None:
        work = Ingest(shop.case.backing)
        with shop.case.leasing.hold("test") as lease:
            work.ingest(FileSource(path), lease, labels={GC_ROOT: "test"}, way=way)
            work.settle()

    return ingest


def _ingest_many(shop: Workshop) -> Do:
    paths = [shop.file(size) for size in (4096, 2 * _MIB, 8192, 16384)]
    return lambda: list(shop.case.blobs.ingest_many(paths))


def _import(shop: Workshop) -> Do:
    path = shop.archive()
    return lambda: shop.case.images.import_archive(path)


def _import_from_pipe(shop: Workshop) -> Do:
    data = shop.archive().read_bytes()
    return lambda: shop.case.images.import_archive(io.BytesIO(data))


def _export(shop: Workshop) -> Do:
    image = shop.imported()
    return lambda: shop.case.images.export(image, shop.place / "export.tar")


def _tag(shop: Workshop) -> Do:
    image = shop.imported()
    return lambda: shop.case.images.tag(image, f"{image}-again")


def _remove_image(shop: Workshop) -> Do:
    image = shop.imported()
    return lambda: shop.case.images.remove(image)


def _prepare(shop: Workshop) -> Do:
    image, name = shop.imported(), VolumeName(uuid.uuid4(), 0)
    return lambda: shop.case.volumes.prepare(name, image)


def _activate(shop: Workshop) -> Do:
    name = shop.prepared()
    return lambda: shop.case.volumes.activate(name)


def _remove_volume(shop: Workshop) -> Do:
    name = shop.prepared()
    return lambda: shop.case.volumes.remove(name)


def _remove_blob(shop: Workshop) -> Do:
    digest = shop.case.blobs.ingest(shop.file(2 * _MIB)).digest
    return lambda: shop.case.blobs.remove(digest)


def _prune(shop: Workshop) -> Do:
    shop.imported()
    return lambda: shop.case.prune.execute(shop.case.prune.plan())


OPERATIONS: Mapping[str, Callable[[Workshop], Do]] = {
    "ingest by seeding": lambda shop: _ingest(shop, Way.SEED),
    "ingest by streaming": lambda shop: _ingest(shop, Way.STREAM),
    "ingest of several": _ingest_many,
    "removal of a blob": _remove_blob,
    "import": _import,
    "import from a pipe": _import_from_pipe,
    "export": _export,
    "tag": _tag,
    "removal of an image": _remove_image,
    "prepare": _prepare,
    "activate": _activate,
    "removal of a volume": _remove_volume,
    "prune": _prune,
}
"""Each makes its input and gives the operation itself, which may be repeated."""


LOOKS: Mapping[str, Callable[[Case, str, VolumeName], object]] = {
    "list of blobs": lambda case, image, volume: list(case.blobs.iter_blobs()),
    "missing blobs": lambda case, image, volume: list(case.blobs.missing([Digest.of(b"")])),
    "list of images": lambda case, image, volume: list(case.images.iter_images()),
    "details of an image": lambda case, image, volume: case.images.inspect(image),
    "usage of a volume": lambda case, image, volume: case.volumes.usage(volume),
    "plan of a prune": lambda case, image, volume: case.prune.plan(),
    "check": lambda case, image, volume: list(case.check.run()),
}
"""Operations that change nothing and need containerd."""
