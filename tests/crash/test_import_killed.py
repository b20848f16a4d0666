"""An import that is killed at any step leaves no half image, and is done by running it again."""

import signal
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest
from cas.store.image.images import Images
from cas.store.leasing import Leasing
from cas.store.sentinel import Sentinel
from tests.support import import_worker
from tests.support.forked import exit_status
from tests.support.images import BuiltImage, Compression, build_image, build_index, layered_image
from tests.support.layers import build_layer, file
from tests.support.stores import assert_nothing_left, backing_for, own_blobs, random_bytes

MOST_STEPS = 400
"""More than an import of these images has; a run that is not killed ends the test before."""


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    backing = backing_for(containerd, settings)
    Sentinel(backing).ensure()
    return backing


def run_worker(settings: Settings, steps: int, archive: Path) -> int:
    arguments = [settings.socket, settings.persist, settings.namespace, steps, archive]
    return exit_status(import_worker.main, [*map(str, arguments)])


def image() -> BuiltImage:
    """An index of two platforms, with a layer that is large enough to be seeded."""
    large = build_layer([file("large", random_bytes(1_100_000))], Compression.NONE)
    own = build_image([large, [file("small", random_bytes(100))]])
    return build_index([own, layered_image(1, platform="linux/s390x")])


def recover(backing: Backing) -> None:
    """What a start after a crash does; twice, since the first leaves what could be resumed."""
    for _ in range(2):
        Leasing(backing).reap()
        Ingest(backing).sweep()


def assert_whole(backing: Backing, built: BuiltImage) -> None:
    for digest, data in built.blobs.items():
        assert backing.content.read_all(Digest.parse(digest), limit=len(data)) == data


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["oci", "docker", "gzip"])
def test_import_killed_at_each_step_is_undone_or_done_and_can_be_repeated(
    form: str, backing: Backing, settings: Settings, tmp_path: Path
) -> None:
    """SIGKILL before every change; a name that exists is whole; once more makes it so."""
    images = Images(backing)
    killed = 0
    for steps in range(MOST_STEPS):
        built = image()
        if form == "docker":
            archive = build_image(built.layers[:2]).write_docker_archive(tmp_path / "a.tar")
        else:
            compression = Compression.GZIP if form == "gzip" else Compression.NONE
            archive = built.write_oci_tar(tmp_path / "a.tar", compression=compression)
        status = run_worker(settings, steps, archive)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        recover(backing)
        assert_nothing_left(backing)
        for record in images.iter_images():
            assert all(platform.complete for platform in images.inspect(record.name).platforms)
        if not list(images.iter_images()):
            backing.leases.collect_garbage()
            assert own_blobs(backing) == set()
        [record] = images.import_archive(archive)
        if form != "docker":
            assert_whole(backing, built)
        assert images.resolve(record.name).layers
        assert_nothing_left(backing)
        images.remove(record.name)
        backing.leases.collect_garbage()
        assert own_blobs(backing) == set()
    else:
        pytest.fail("the import never came to its end")
    assert killed > 20
