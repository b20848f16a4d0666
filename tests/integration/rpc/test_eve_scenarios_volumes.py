"""What went wrong in EVE with volumes, played through the service.

Each test quotes the number of the bug in EVE's tracker. Those about blobs and images are in
test_eve_scenarios_content.py.
"""

import io
import json
import os
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from cas._gen.cas.v1 import volumes_pb2
from tests.support.daemon import mounts_below
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.layers import file
from tests.support.rpc import Service, failing, last
from tests.support.stores import assert_nothing_left
from tests.support.volumemgr import VolumeManager, volume_name
from tests.support.waiting import wait_for


@pytest.fixture
def manager(service: Service, allowed: Path) -> VolumeManager:
    """The caller."""
    return VolumeManager(service, allowed)


@pytest.fixture
def image(manager: VolumeManager) -> BuiltImage:
    """In the store."""
    image = _image()
    manager.load(image)
    return image


def _image(layers: int = 2) -> BuiltImage:
    name = uuid.uuid4().hex
    return layered_image(layers, name=f"example.com/{name}:1", seed=name)


def _assert_gone(service: Service, manager: VolumeManager, name: str) -> None:
    """Neither volume nor directory, snapshot, mount or lease of it is there."""
    layout = service.case.settings.layout
    assert name not in manager.volumes()
    assert [path for path in layout.volumes.iterdir() if name in path.name] == []
    assert mounts_below(layout.volumes / name) == []
    snapshots = service.case.containerd.snapshots.iter_snapshots()
    assert name not in {snapshot.name for snapshot in snapshots}
    assert_nothing_left(service.case.backing)


def test_half_made_volume_is_no_volume(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #2646, c284e5c32: after a power cut a half-copied disk passed for a good one."""
    name = volume_name()
    manager.prepare(name, image.name)
    directory = service.case.settings.layout.volumes / name
    directory.rename(directory.with_name(f".{name}.preparing"))
    assert manager.volumes() == []

    manager.recover()

    _assert_gone(service, manager, name)
    assert manager.prepare(name, image.name).name == name


def test_config_of_a_volume_is_whole_when_the_volume_is_there(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4052, #4088: the image's config was an empty file after a power cut."""
    directory = service.case.settings.layout.volumes
    name = volume_name()

    def config_at_once() -> bytes:
        wait_for((directory / name).is_dir)
        return (directory / name / "image-config.json").read_bytes()

    with ThreadPoolExecutor() as threads:
        seen = threads.submit(config_at_once)
        manager.prepare(name, image.name)

    assert json.loads(seen.result()) == json.loads(image.config)


def test_volume_with_an_empty_record_is_reported_and_can_be_made_again(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4052, #6122: an empty file was taken for the truth."""
    name = volume_name()
    manager.prepare(name, image.name)
    (service.case.settings.layout.volumes / name / "volume.json").write_bytes(b"")

    volume = manager.volume(name)
    assert volume.state == volumes_pb2.VOLUME_STATE_CORRUPT
    assert "volume.json" in volume.problem
    with failing(grpc.StatusCode.DATA_LOSS, "volume-corrupt"):
        service.volumes.Activate(volumes_pb2.ActivateVolumeRequest(name=name))

    assert manager.remove_volume(name, force=True)
    _assert_gone(service, manager, name)
    assert manager.prepare(name, image.name).state == volumes_pb2.VOLUME_STATE_INACTIVE


def test_preparation_whose_caller_vanished_is_taken_up_by_the_next(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #1614: a worker's result was lost, and the volume stayed CREATING for ever."""
    name = volume_name()
    request = volumes_pb2.PrepareVolumeRequest(name=name, image=image.name)
    with service.connect() as channel:
        steps = type(service.volumes)(channel).Prepare(request)
        next(steps)

    assert manager.prepare(name, image.name, activate=True).record.image == image.name
    wait_for(lambda: not service.server.running)
    assert manager.volumes() == [name]
    assert_nothing_left(service.case.backing)


def test_removal_during_preparation_waits_and_leaves_nothing(
    service: Service, manager: VolumeManager
) -> None:
    """EVE #2311: a delete that met a create left the volume's disk behind."""
    image = build_image([[file("data", os.urandom(8_000_000))]], name="example.com/large:1")
    manager.load(image)
    name = volume_name()
    request = volumes_pb2.PrepareVolumeRequest(name=name, image=image.name, activate=True)

    with ThreadPoolExecutor() as threads:
        steps = service.volumes.Prepare(request)
        next(steps)
        removal = threads.submit(manager.remove_volume, name)
        made = [step for step in steps if step.HasField("volume")]
        removed = removal.result()

    assert len(made) == 1
    assert manager.volumes() == ([] if removed else [name])
    manager.remove_volume(name)
    _assert_gone(service, manager, name)


def test_failed_removal_keeps_the_volume_until_it_succeeds(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #6176, #6190: after a delete that failed nobody knew of the volume any more."""
    name = volume_name()
    rootfs = Path(manager.prepare(name, image.name, activate=True).rootfs)
    with subprocess.Popen(["sleep", "infinity"], cwd=rootfs) as user:
        try:
            for _ in range(2):
                with failing(grpc.StatusCode.FAILED_PRECONDITION, "in-use"):
                    manager.remove_volume(name)
                assert manager.volume(name).state == volumes_pb2.VOLUME_STATE_ACTIVE
                assert (rootfs / "top").exists()
        finally:
            user.kill()

    assert manager.remove_volume(name)
    _assert_gone(service, manager, name)


def test_mounted_volume_is_unmounted_before_it_is_removed(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #1138, #2124: the directory of a mounted volume was deleted: EBUSY."""
    name = volume_name()
    rootfs = Path(manager.prepare(name, image.name, activate=True).rootfs)
    assert rootfs in mounts_below(service.case.settings.layout.volumes)

    assert manager.remove_volume(name)

    _assert_gone(service, manager, name)


def test_removal_never_goes_through_a_mount_inside(
    service: Service, manager: VolumeManager, image: BuiltImage, tmp_path: Path
) -> None:
    """EVE #2413, #2718: what was mounted in a volume was deleted with it, forced or not."""
    name = volume_name()
    inside = Path(manager.prepare(name, image.name, activate=True).rootfs) / "inside"
    inside.mkdir()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("not the volume's")
    subprocess.run(["mount", "--bind", precious, inside], check=True)

    with failing(grpc.StatusCode.FAILED_PRECONDITION, "in-use"):
        manager.remove_volume(name)
    assert manager.volumes() == [name]
    assert manager.remove_volume(name, force=True)

    assert (precious / "file").read_text() == "not the volume's"
    _assert_gone(service, manager, name)


def test_next_generation_of_an_image_needs_no_second_copy(
    service: Service, manager: VolumeManager
) -> None:
    """EVE #2477: a purge needed the space of the volume twice."""
    image = build_image([[file("data", os.urandom(4_000_000))]], name="example.com/purged:1")
    manager.load(image)
    identifier = uuid.uuid4()
    old, new = f"{identifier}#0", f"{identifier}#1"
    manager.prepare(old, image.name)
    before = _allocated(service.case.settings.layout.case)

    manager.prepare(new, image.name)

    assert _allocated(service.case.settings.layout.case) - before < 1_000_000
    usage = service.volumes.Usage(volumes_pb2.VolumeUsageRequest(name=new))
    assert usage.own_bytes < 100_000
    assert usage.shared_bytes >= 4_000_000


def test_changed_content_wants_the_next_generation(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4769: a volume went on with old content; and its data must not go with it."""
    other = _image()
    manager.load(other)
    identifier = uuid.uuid4()
    rootfs = Path(manager.prepare(f"{identifier}#0", image.name, activate=True).rootfs)
    (rootfs / "mine").write_text("data")

    with failing(grpc.StatusCode.FAILED_PRECONDITION, "volume-conflict"):
        manager.prepare(f"{identifier}#0", other.name)

    assert (rootfs / "mine").read_text() == "data"
    assert manager.prepare(f"{identifier}#1", other.name).record.root_digest == other.digest


def test_repeated_preparation_keeps_the_data(manager: VolumeManager, image: BuiltImage) -> None:
    """EVE's PrepareContainerRootDir removed the volume first, and with it what was written."""
    name = volume_name()
    rootfs = Path(manager.prepare(name, image.name, activate=True).rootfs)
    (rootfs / "mine").write_text("data")

    assert manager.prepare(name, image.name, activate=True).rootfs == str(rootfs)

    assert (rootfs / "mine").read_text() == "data"


def test_volumes_of_one_image_never_share_what_can_be_written(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4060, #5350: two applications wrote to one file, and spoiled each other's disk."""
    first, second = (
        Path(manager.prepare(volume_name(), image.name, activate=True).rootfs) for _ in range(2)
    )
    (first / "mine").write_text("data")
    assert not (second / "mine").exists()

    blob = service.case.blobs.ingest_stream(io.BytesIO(bytes(1024 * 1024))).digest
    disks = [_disk_of(service, str(blob)) for _ in range(2)]
    with disks[0].open("r+b") as disk:
        disk.write(b"mine")
    assert disks[0].read_bytes()[:4] == b"mine"
    assert disks[1].read_bytes() == bytes(1024 * 1024)
    assert service.case.blobs.verify(blob).size == 1024 * 1024


def _disk_of(service: Service, source: str) -> Path:
    name = volume_name()
    request = volumes_pb2.PrepareDiskRequest(
        name=name, source=source, format=volumes_pb2.DISK_FORMAT_RAW
    )
    last(service.volumes.PrepareDisk(request))
    return service.case.settings.layout.volumes / name


def test_sparse_file_counts_what_it_takes(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #3874, #2699, #3667: apparent and allocated sizes were mixed, and one fell below zero."""
    name = volume_name()
    rootfs = Path(manager.prepare(name, image.name, activate=True).rootfs)
    with (rootfs / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
        sparse.write(b"x" * 1_000_000)
        os.fsync(sparse.fileno())

    usage = service.volumes.Usage(volumes_pb2.VolumeUsageRequest(name=name))

    assert 1_000_000 <= usage.own_bytes < 2_000_000


def test_snapshot_is_found_by_its_record_not_by_the_directory(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE 507d889d6: the key of a snapshot followed from a name that changed in a migration."""
    name = volume_name()
    rootfs = Path(manager.prepare(name, image.name, activate=True).rootfs)
    (rootfs / "mine").write_text("data")
    service.volumes.Deactivate(volumes_pb2.DeactivateVolumeRequest(name=name))
    renamed = volume_name()
    layout = service.case.settings.layout
    (layout.volumes / name).rename(layout.volumes / renamed)
    record = layout.volumes / renamed / "volume.json"
    record.write_text(record.read_text().replace(f'"name": "{name}"', f'"name": "{renamed}"'))

    volume = service.volumes.Activate(volumes_pb2.ActivateVolumeRequest(name=renamed))

    assert volume.record.snapshot_key == name
    assert (Path(volume.rootfs) / "mine").read_text() == "data"


def test_volume_is_reported_when_it_can_be_used(manager: VolumeManager, image: BuiltImage) -> None:
    """EVE #6318, #6406, #6092: a volume was CREATED before it was bound."""
    volume = manager.prepare(volume_name(), image.name, activate=True)

    assert volume.state == volumes_pb2.VOLUME_STATE_ACTIVE
    (Path(volume.rootfs) / "written").write_text("x")


def test_image_of_a_volume_is_not_collected(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE 26e8dbedf: the collection forgot one kind of owner, and removed what it used."""
    name = volume_name()
    manager.prepare(name, image.name)

    with failing(grpc.StatusCode.FAILED_PRECONDITION, "in-use"):
        manager.remove_image(image.name)
    manager.prune_blobs()
    manager.collect_garbage()

    assert manager.holes(image.name) == []
    assert service.volumes.Activate(volumes_pb2.ActivateVolumeRequest(name=name)).rootfs
    assert manager.findings() == []


@pytest.mark.parametrize(
    "name", ["../escape#0", f"{uuid.UUID(int=1)}#../..", f"{uuid.UUID(int=1)}", "", "."]
)
def test_volume_name_that_is_a_path_is_refused(
    service: Service, manager: VolumeManager, image: BuiltImage, name: str
) -> None:
    """EVE #6187, for names of volumes."""
    before = sorted(service.case.settings.layout.volumes.iterdir())
    for call in (
        lambda: manager.prepare(name, image.name),
        lambda: manager.remove_volume(name, force=True),
        lambda: manager.volume(name),
    ):
        with failing(grpc.StatusCode.INVALID_ARGUMENT, "invalid-name"):
            call()
    assert sorted(service.case.settings.layout.volumes.iterdir()) == before


def _allocated(directory: Path) -> int:
    """Bytes of the files there are; containerd may remove some meanwhile."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total
