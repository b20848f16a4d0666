"""The account of a store as a device has it: a hundred volumes and twenty snapshots, told alike."""

import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cas.app import Case
from cas.cli.main import main
from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from cas.store.account.usage_values import CONTAINER, StoreUsage, VolumeShare
from cas.store.directories import create_directories
from cas.volumes.status import VolumeUsage
from tests.support.daemon import private_daemon, settings_for
from tests.support.images import build_image
from tests.support.layers import file
from tests.support.loopfs import LoopFileSystem, mounted
from tests.support.service import Service
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

_KIB = 1024
_MIB = 1024 * _KIB
_IMAGE = "example.com/small:1"
_CONTAINERS = 84
_SNAPSHOTS = 16
_DISK_SNAPSHOTS = 4
_WRITTEN = 96 * _KIB
_DISK = 2 * _MIB
_BOOKKEEPING = 64 * _KIB
"""Directories above the parts, and blocks of extents: the file system's own."""


@pytest.fixture
def device(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> Iterator[tuple[Service, int]]:
    """A service on a file system that holds nothing else, and the bytes used when it was empty."""
    disk = loop_ext4(512 * _MIB)
    tables = _used(disk.path)
    settings = settings_for(disk.path, containerd_binary)
    create_directories(settings, repair=True)
    with Service(settings) as service:
        service.start()
        yield service, tables


def _used(path: Path) -> int:
    os.sync()
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _fill(settings: Settings, scratch: Path) -> None:
    """Make containers, some written into and with snapshots, and disks of each kind."""
    archive = build_image(layers=[[file("data", secrets.token_bytes(3 * _MIB))]]).named(_IMAGE)
    # Room for all disks when they are full is not what is looked at here.
    limits = replace(settings.limits, thin_disks=True)
    with Case.open(replace(settings, limits=limits)) as case:
        case.images.import_archive(archive.write_oci_tar(scratch / "image.tar"))
        names = [volume_name() for _ in range(_CONTAINERS)]
        for number, name in enumerate(names):
            case.volumes.prepare(name, _IMAGE)
            if number < _SNAPSHOTS:
                _write(case, name)
                case.volume_snapshots.create([name], "before")
            if number < _SNAPSHOTS // 2:
                _write(case, name)
        half_zeros = secrets.token_bytes(_DISK // 2) + bytes(_DISK // 2)
        blobs = [_ingested(case, each) for each in (half_zeros, secrets.token_bytes(_DISK))]
        for number in range(4):
            clear = number % 2 == 1
            for request in (
                DiskRequest(blobs[0], size=64 * _MIB, clear=clear),
                DiskRequest(blobs[1], clear=clear),
                DiskRequest(blobs[0], format=DiskFormat.QCOW2, clear=clear),
                DiskRequest(None, size=512 * _MIB, clear=clear),
            ):
                name = case.volumes.prepare_disk(volume_name(), request).name
                if request.format is DiskFormat.QCOW2:
                    case.volume_snapshots.create([name], "before")


def _ingested(case: Case, data: bytes) -> str:
    return str(case.blobs.ingest_stream(io.BytesIO(data)).digest)


def _write(case: Case, name: VolumeName) -> None:
    rootfs = case.volumes.activate(name).rootfs
    (rootfs / secrets.token_hex(4)).write_bytes(secrets.token_bytes(_WRITTEN))
    case.volumes.deactivate(name)


def _told_by_command(
    service: Service, capfd: pytest.CaptureFixture[str], use: str
) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["--config", str(service.config), "--service", use, "df", "--json"]) == 0
    answer: dict[str, Any] = json.loads(capfd.readouterr().out)
    return answer


def _by_place(usage: StoreUsage) -> dict[str, int]:
    return {f"{entry.owner}/{entry.part}": entry.size for entry in usage.entries}


@pytest.mark.once
def test_account_of_a_hundred_volumes_and_twenty_snapshots_adds_up(
    device: tuple[Service, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Library, service and both ways of the command say the same, and the file system agrees."""
    service, tables = device
    _fill(service.settings, tmp_path)
    used = _used(service.settings.persist)

    with Case.open(service.settings, writing=False) as case:
        measured = case.usage.measure()
    with Client.connect(service.settings.service_socket) as client:
        served = client.usage.measure()
    told = [_told_by_command(service, capfd, use) for use in ("never", "always")]

    [system] = measured.file_systems
    assert abs(system.used - used) < _BOOKKEEPING
    assert system.explained == measured.size
    assert abs(system.unexplained - tables) < _BOOKKEEPING
    _assert_volumes_are_their_parts(measured)
    assert served.volumes == measured.volumes
    _assert_alike(_by_place(served), _by_place(measured))
    for other in told:
        assert other["volumes"] == [asdict(volume) for volume in measured.volumes]
        sizes = {f"{row['owner']}/{row['part']}": row["size"] for row in other["entries"]}
        _assert_alike(sizes, _by_place(measured))


def _assert_volumes_are_their_parts(usage: StoreUsage) -> None:
    """What is said of each volume adds up to what is said of all."""
    containers = [volume for volume in usage.volumes if volume.format == CONTAINER]
    disks = [volume for volume in usage.volumes if volume.format != CONTAINER]
    assert (len(containers), len(disks)) == (_CONTAINERS, 100 - _CONTAINERS)
    assert sum(volume.snapshot_bytes >= _WRITTEN for volume in containers) == _SNAPSHOTS
    assert sum(disk.format == DiskFormat.QCOW2 for disk in disks) == _DISK_SNAPSHOTS
    places = _by_place(usage)
    written = sum(volume.own_bytes + volume.snapshot_bytes for volume in containers)
    assert places["volumes/written"] == written >= _SNAPSHOTS * _WRITTEN * 3 // 2
    for part, clear in (("volumes/files", False), ("volumes/files in clear", True)):
        files = sum(disk.own_bytes for disk in disks if disk.clear == clear)
        records = (_CONTAINERS * 2 + 16) * 3 * 4 * _KIB
        assert files <= places[part] < files + records
    assert (
        sum(disk.own_bytes for disk in disks) < 2 * sum(disk.virtual_size for disk in disks) // 100
    )


def _assert_alike(sizes: dict[str, int], others: dict[str, int]) -> None:
    """Databases grow, and logs, while we look."""
    assert sizes.keys() == others.keys()
    assert [key for key in sizes if abs(sizes[key] - others[key]) > _BOOKKEEPING] == []


@pytest.mark.once
def test_blocks_that_disks_share_are_counted_once(tmp_path: Path, containerd_binary: str) -> None:
    """With their image as long as that is there, else with each other; the sum is the disk's."""
    with mounted("xfs", tmp_path) as path:
        tables = _used(path)
        settings = settings_for(path, containerd_binary)
        with private_daemon(settings), Case.open(settings) as case:
            blob = _ingested(case, secrets.token_bytes(8 * _MIB))
            for clear in (False, True):
                case.volumes.prepare_disk(volume_name(), DiskRequest(blob, clear=clear))
            first, second = (status.rootfs for status in case.volumes.iter_disks())
            with first.open("r+b") as disk:
                disk.write(secrets.token_bytes(_MIB))
            shared = [(0, 8 * _MIB, 0), (_MIB, 7 * _MIB, 0)]

            _assert_shared(case, tables, shared, content=8 * _MIB, disks=_MIB)
            case.blobs.remove(Digest.parse(blob))
            case.collect_garbage()
            _assert_shared(case, tables, [(_MIB, 7 * _MIB, 0)] * 2, content=0, disks=9 * _MIB)
            case.volumes.remove(VolumeName.parse(second.name))
            _assert_shared(case, tables, [(8 * _MIB, 0, 0)], content=0, disks=8 * _MIB)
            case.volume_snapshots.create([VolumeName.parse(first.name)], "before")
            _assert_shared(case, tables, [(0, 8 * _MIB, 0)], content=0, disks=8 * _MIB)
            with first.open("r+b") as disk:
                disk.write(secrets.token_bytes(2 * _MIB))
            changed = [(2 * _MIB, 6 * _MIB, 2 * _MIB)]
            _assert_shared(case, tables, changed, content=0, disks=10 * _MIB)


def _assert_shared(
    case: Case, tables: int, shares: list[tuple[int, int, int]], *, content: int, disks: int
) -> None:
    """What is said of disks, of their directories and of the whole fits.

    XFS gives up the blocks of a removed file some time after its removal.
    """
    os.sync()
    wait_for(lambda: sorted(map(_share, case.usage.measure().volumes)) == shares)
    usage = case.usage.measure()
    for volume in usage.volumes:
        assert _share(case.volumes.usage(VolumeName.parse(volume.name))) == _share(volume)
    places = _by_place(usage)
    # XFS keeps room behind the end of a file for a while, and says so.
    assert content <= places["store/content"] <= 2 * content + _BOOKKEEPING
    files = places["volumes/files"] + places["volumes/files in clear"]
    assert abs(files - disks) < _BOOKKEEPING
    [system] = usage.file_systems
    assert abs(system.unexplained - tables) < _MIB


def _share(told: VolumeShare | VolumeUsage) -> tuple[int, int, int]:
    return told.own_bytes, told.shared_bytes, told.snapshot_bytes
