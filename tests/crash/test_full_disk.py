"""The disk fills up while the store works: errors in time, nothing half done, removal works."""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import NoSpaceError
from cas.model.limits import Limits
from cas.model.volume_name import VolumeName
from cas.store.check.findings import Severity
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import StreamSource
from tests.support.command import Cas
from tests.support.crash_store import Machine, recover
from tests.support.images import Compression, build_image, layered_image
from tests.support.layers import file
from tests.support.loopfs import LoopFileSystem
from tests.support.operations import OPERATIONS, Workshop
from tests.support.steps import AtStep, WatchedCancellation, open_case
from tests.support.trees import names_below

_MIB = 1024 * 1024
_DISK_BYTES = 96 * _MIB
_SMALL_DISK_BYTES = 48 * _MIB
_EXIT_NO_SPACE = 6
_TIMES = 4
_NEEDING_NO_ROOM = frozenset(
    {"removal of a blob", "removal of an image", "removal of a volume", "prune", "activate"}
)
_NEEDING_LITTLE = frozenset({"tag"})
_NO_MARGIN = Limits(min_free_bytes=0)
"""Without the room that new work leaves, it meets the end of the disk itself."""
_NAME = "0b4b1c1e-5a0f-4d86-9d3c-52f0a60b7a11#0"

MakeDisk = Callable[[int], LoopFileSystem]


def _errors(case: Case) -> list[str]:
    return [str(each) for each in case.check.run() if each.severity is Severity.ERROR]


def _files(machine: Machine) -> set[str]:
    """Everything in containerd's root but the insides of its databases."""
    return names_below(machine.settings.layout.case)


def _snapshots(machine: Machine) -> Path:
    return machine.settings.layout.case / "io.containerd.snapshotter.v1.overlayfs/snapshots"


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {"export"}))
def test_operation_on_a_disk_that_fills_up_fails_whole_and_succeeds_with_room(
    operation: str, crash_seed: int, loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """It says that there is no room, leaves the store sound, and can be repeated."""
    source = random.Random(f"{crash_seed}-{operation}")
    disk = loop_ext4(_DISK_BYTES)
    flood = AtStep(disk.fill)
    with (
        Machine(disk, containerd_binary, _NO_MARGIN) as machine,
        open_case(machine.settings, flood) as case,
    ):
        shop = Workshop(case, tmp_path)
        do = OPERATIONS[operation](shop)
        flood.set(None)
        do()
        failures = 0
        for last in (0, *(source.randrange(flood.steps) for _ in range(_TIMES - 1))):
            do = OPERATIONS[operation](shop)
            flood.set(last)
            try:
                do()
            except NoSpaceError:
                failures += 1
            assert machine.daemon.is_running()
            assert _errors(case) == []
            flood.set(None)
            disk.make_room()
            do()
        if operation in _NEEDING_NO_ROOM:
            assert failures == 0
        elif operation not in _NEEDING_LITTLE:
            assert failures > 0
        case.volumes.deactivate_all()
        assert recover(case) == []


@pytest.mark.slow
def test_files_that_a_full_disk_kept_from_removal_go_with_the_next_prune(
    loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """Without a reserve, which small disks have not, containerd fails to remove and forgets."""
    disk = loop_ext4(_SMALL_DISK_BYTES)

    def fill_late(step: str) -> None:
        if step == "diff.apply":
            disk.fill(leave=_MIB)

    with Machine(disk, containerd_binary, _NO_MARGIN) as machine:
        with open_case(machine.settings, fill_late) as case:
            image = build_image([[file("f", os.urandom(4 * _MIB))]], compression=Compression.NONE)
            case.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
            with pytest.raises(NoSpaceError):
                case.volumes.prepare(VolumeName.parse(_NAME), image.name)
            assert not machine.settings.layout.reserve.exists()
        disk.make_room()
        with Case.open(machine.settings) as case:
            case.prune.execute(case.prune.plan())
            assert list(_snapshots(machine).iterdir()) == []
            assert recover(case) == []


@pytest.mark.slow
@pytest.mark.parametrize("way", [Way.SEED, Way.STREAM])
def test_ingest_that_meets_the_end_of_the_disk_leaves_nothing(
    way: Way, loop_ext4: MakeDisk, containerd_binary: str
) -> None:
    """The end comes in the middle of a stream whose length nobody knew."""
    disk = loop_ext4(_DISK_BYTES)
    content = os.urandom(20 * _MIB)
    looks = 0

    def fill_late(step: str) -> None:
        nonlocal looks
        looks += 1
        if looks == 4:
            disk.fill(leave=6 * _MIB)

    with (
        Machine(disk, containerd_binary, _NO_MARGIN) as machine,
        Case.open(machine.settings) as case,
    ):
        ingest = Ingest(case.backing)

        def take(cancel: WatchedCancellation | None) -> None:
            with case.leasing.hold("test") as lease:
                source = StreamSource(io.BytesIO(content), "test")
                ingest.ingest(source, lease, way=way, cancel=cancel)

        before = _files(machine)
        with pytest.raises(NoSpaceError):
            take(WatchedCancellation(fill_late))
        assert looks > 4, "the disk was full before it began"
        assert machine.daemon.is_running()
        assert list(case.backing.content.iter_ingests()) == []
        assert list(case.backing.leases.iter_leases()) == []
        assert _files(machine) - before <= {str(case.settings.layout.stage), str(disk.path)}
        disk.make_room()
        take(None)
        assert recover(case) == []


@pytest.mark.slow
def test_unpack_that_meets_the_end_of_the_disk_gives_everything_back(
    loop_ext4: MakeDisk, containerd_binary: str, tmp_path: Path
) -> None:
    """containerd runs out of room in the middle of a layer that would have fitted before."""
    disk = loop_ext4(_DISK_BYTES)
    content = os.urandom(_MIB)
    image = build_image(
        [[file(f"f{number}", content) for number in range(16)]], compression=Compression.NONE
    )
    name = VolumeName.parse(_NAME)

    def fill_late(step: str) -> None:
        if step == "diff.apply":
            disk.fill(leave=4 * _MIB)

    with Machine(disk, containerd_binary, _NO_MARGIN) as machine:
        with open_case(machine.settings, fill_late) as case:
            case.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
            with pytest.raises(NoSpaceError):
                case.volumes.prepare(name, image.name)
            assert machine.daemon.is_running()
            assert list(_snapshots(machine).iterdir()) == []
            assert list(case.volumes.iter_volumes()) == []
        disk.make_room()
        with Case.open(machine.settings) as case:
            rootfs = case.volumes.prepare(name, image.name, activate=True).rootfs
            assert all((rootfs / f"f{number}").read_bytes() == content for number in range(16))
            case.volumes.deactivate(name)
            assert recover(case) == []


@pytest.mark.slow
def test_commands_on_a_full_disk_exit_with_6_and_make_room(
    loop_ext4: MakeDisk,
    containerd_binary: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What needs room says so; what gives room works without any; then the rest works too."""
    disk = loop_ext4(_DISK_BYTES)
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(8 * _MIB))
    old, new, unused = (
        layered_image(2, name=f"example.com/test/{name}:1", seed=name)
        for name in ("old", "new", "unused")
    )
    archive = new.write_oci_tar(tmp_path / "new.tar")
    other_name = _NAME.replace("#0", "#1")
    with Machine(disk, containerd_binary, _NO_MARGIN) as machine:
        cas = Cas(machine.settings, tmp_path, capfd)
        for image in (old, unused):
            done = cas("image", "import", image.write_oci_tar(tmp_path / "image.tar"))
            done.assert_orderly(0)
        cas("volume", "prepare", _NAME, "--image", old.name).assert_orderly(0)
        filling: tuple[tuple[object, ...], ...] = (
            ("blob", "ingest", blob),
            ("image", "import", archive),
            ("volume", "prepare", other_name, "--image", unused.name),
        )
        disk.fill()
        for command in filling:
            cas(*command).assert_orderly(_EXIT_NO_SPACE)
        cas("df").assert_orderly(0)
        cas("check").assert_orderly(0)
        cas("volume", "rm", _NAME).assert_orderly(0)
        cas("image", "rm", old.name).assert_orderly(0)
        cas("prune", "--force").assert_orderly(0)
        assert cas("image", "ls", "-q").out == ""
        disk.make_room()
        cas("image", "import", unused.write_oci_tar(tmp_path / "image.tar")).assert_orderly(0)
        for command in filling:
            cas(*command).assert_orderly(0)
        cas("check", "--read-data").assert_orderly(0)
