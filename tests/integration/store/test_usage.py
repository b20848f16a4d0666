"""Accounting on a real containerd: the parts add up and agree with the file system."""

import os
import secrets
import subprocess
from collections.abc import Callable
from contextlib import closing
from contextvars import copy_context
from pathlib import Path

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation, begin_operation
from cas.model.digest import Digest
from cas.model.disk.record import DiskRequest
from cas.model.labels import GC_ROOT
from cas.model.settings import Settings
from cas.store.account.inventory import OtherContent
from cas.store.account.usage import Usage
from cas.store.account.usage_values import StoreUsage, VolumeShare
from tests.support.daemon import connect, private_daemon, settings_for
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.loopfs import LoopFileSystem
from tests.support.volumes import Recorder, Store, add_image, open_store, volume_name

_MIB = 1024 * 1024


def _image(name: str, *layers: bytes) -> BuiltImage:
    return build_image(layers=[[file("data", data)] for data in layers]).named(name)


def _entry(usage: StoreUsage, owner: str, part: str) -> int:
    return sum(entry.size for entry in usage.entries if (entry.owner, entry.part) == (owner, part))


def _du(path: Path) -> int:
    answer = subprocess.run(
        ["du", "--summarize", "--block-size=1", "--one-file-system", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout.split()[0])


def test_usage_agrees_with_du(store: Store, others: OtherContent) -> None:
    """What the account says in total is what du says, but for the few directories above."""
    add_image(store, _image("example.com/a:1", secrets.token_bytes(4 * _MIB)))
    name = volume_name()
    store.volumes.prepare(name, "example.com/a:1", activate=True)
    store.volumes.deactivate(name)
    before = _du(store.settings.persist)
    store.volumes.activate(name)
    size = Usage(store.backing, others=others).measure().size
    store.volumes.deactivate(name)
    after = _du(store.settings.persist)
    # containerd's databases grow and its collector works while we look.
    assert min(before, after) - _MIB // 4 < size < max(before, after) + _MIB // 4


def test_usage_of_images_tells_shared_from_unique(store: Store) -> None:
    """A layer that two images share is unique to neither."""
    shared, own = secrets.token_bytes(2 * _MIB), secrets.token_bytes(_MIB)
    first = _image("example.com/a:1", shared)
    second = _image("example.com/b:1", shared, own)
    add_image(store, first)
    add_image(store, second)
    store.unpack_image(second.name)
    images = {image.name: image for image in Usage(store.backing).measure().images}
    assert images[first.name].content_bytes >= 2 * _MIB
    assert images[first.name].unique_bytes < 64 * 1024
    assert images[first.name].snapshot_bytes == 0
    assert images[second.name].snapshot_bytes >= 3 * _MIB
    assert _MIB <= images[second.name].unique_bytes - images[second.name].snapshot_bytes < 2 * _MIB


def test_usage_of_a_volume_is_what_was_written_into_it(store: Store) -> None:
    """Own bytes are the volume's, layers below are shared; both once in the total."""
    image = _image("example.com/a:1", secrets.token_bytes(2 * _MIB))
    add_image(store, image)
    names = [volume_name(), volume_name()]
    for name in names:
        store.volumes.prepare(name, image.name)
    before = Usage(store.backing).measure()
    rootfs = store.volumes.activate(names[0]).rootfs
    (rootfs / "written").write_bytes(secrets.token_bytes(3 * _MIB))
    os.sync()
    after = Usage(store.backing).measure()
    store.volumes.deactivate(names[0])
    shares = {share.name: share for share in after.volumes}
    assert 3 * _MIB <= shares[str(names[0])].own_bytes < 4 * _MIB
    assert shares[str(names[1])].own_bytes < 64 * 1024
    assert {share.shared_bytes // _MIB for share in after.volumes} == {2}
    grown = _entry(after, "volumes", "written") - _entry(before, "volumes", "written")
    assert 3 * _MIB <= grown < 4 * _MIB
    # Mounting makes a directory in the snapshot that is not the volume's data.
    others = _entry(after, "store", "snapshots") - _entry(before, "store", "snapshots")
    assert 0 <= others < 64 * 1024


def test_usage_counts_disks_by_what_they_allocate(store: Store, others: OtherContent) -> None:
    """In both directories, holes not counted."""

    def measured() -> StoreUsage:
        return Usage(store.backing, others=others, disks=lambda: shares).measure()

    shares: list[VolumeShare] = []
    before = measured()
    for clear in (False, True):
        request = DiskRequest(None, size=64 * _MIB, clear=clear)
        status = store.volumes.prepare_disk(volume_name(), request)
        with status.rootfs.open("r+b") as disk:
            disk.write(secrets.token_bytes(_MIB))
        shares.append(VolumeShare(str(status.name), _MIB, 0, 0, "raw", 64 * _MIB, clear))
    os.sync()

    after = measured()

    assert {share.name for share in after.volumes} == {share.name for share in shares}
    for part in ("files", "files in clear"):
        grown = _entry(after, "volumes", part) - _entry(before, "volumes", part)
        assert _MIB <= grown < _MIB + 64 * 1024
    assert {entry.part: entry.objects for entry in after.entries if entry.owner == "volumes"} == {
        "files": 1, "files in clear": 1, "written": 0
    }  # fmt: skip


def test_usage_names_what_belongs_to_whom(store: Store, others: OtherContent) -> None:
    """Downloader, verifier, staging, files without record and strangers are told apart."""
    layout = store.settings.layout
    data = secrets.token_bytes(_MIB)
    assert store.backing.blobs_directory is not None
    orphan = store.backing.blobs_directory / Digest.of(data).hex
    layout.stage.mkdir(parents=True, exist_ok=True)
    places = {
        ("downloader", "files"): layout.downloader / "transfer",
        ("verifier", "files"): layout.verifier / "pending" / "transfer",
        ("store", "staged files"): layout.stage / "half",
        ("store", "files without record"): orphan,
        ("others", "strange"): store.settings.persist / "strange",
    }
    for path in places.values():
        path.write_bytes(data)
    try:
        usage = Usage(store.backing, others=others).measure()
    finally:
        for path in places.values():
            path.unlink()
    sizes = {place: _entry(usage, *place) for place in places}
    assert {place for place, size in sizes.items() if not _MIB <= size < 2 * _MIB} == set()


def test_content_of_another_namespace_is_not_ours(
    store: Store, others: OtherContent, settings: Settings
) -> None:
    """Blobs that only another namespace knows are counted for the others."""
    data = secrets.token_bytes(_MIB)
    with closing(connect(settings)) as connection:
        neighbour = connection.in_namespace(f"{settings.namespace}-n")
        lease = neighbour.leases.create("l", {})  # type: ignore[arg-type]
        neighbour.content.put("r", lease.id, data, Digest.of(data), {GC_ROOT: "now"})
        try:
            usage = Usage(store.backing, others=others).measure()
        finally:
            neighbour.content.delete(Digest.of(data))
            neighbour.leases.delete(lease.id, sync=True)
            neighbour.namespaces.delete(f"{settings.namespace}-n")
    assert _entry(usage, "others", "content of other namespaces") >= _MIB
    assert _entry(usage, "store", "files without record") == 0


def test_usage_counts_blocks_and_not_length(store: Store) -> None:
    """A sparse file costs what is allocated."""
    path = store.settings.layout.downloader / "sparse"
    with path.open("wb") as file:
        file.truncate(100 * _MIB)
    try:
        usage = Usage(store.backing).measure()
    finally:
        path.unlink()
    assert _entry(usage, "downloader", "files") < _MIB


def test_usage_tells_progress_while_it_walks(store: Store) -> None:
    """Every part is announced and ends."""
    recorder = Recorder()
    Usage(store.backing).measure(progress=recorder)
    assert recorder.started
    assert recorder.started == recorder.finished
    assert recorder.advanced > 0


def test_usage_explains_a_file_system_of_its_own(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> None:
    """On a file system that holds nothing else, almost every used block has an owner."""
    disk = loop_ext4(128 * _MIB)
    empty = os.statvfs(disk.path)
    tables = (empty.f_blocks - empty.f_bfree) * empty.f_frsize
    settings = settings_for(disk.path, containerd_binary)
    with private_daemon(settings) as daemon:
        usage = _fill(daemon)
    [system] = usage.file_systems
    assert system.explained >= 10 * _MIB
    assert system.path == disk.path
    assert abs(system.unexplained - tables) < 64 * 1024


def _fill(daemon: Daemon) -> StoreUsage:
    with closing(connect(daemon.settings)) as containerd:
        store = open_store(containerd, daemon.settings)
        add_image(store, _image("example.com/a:1", secrets.token_bytes(5 * _MIB)))
        store.volumes.prepare(volume_name(), "example.com/a:1")
        os.sync()
        return Usage(store.backing).measure()


def test_measuring_stops_in_the_middle_of_a_walk_when_its_operation_is_stopped(
    store: Store, others: OtherContent
) -> None:
    """Whoever asked may be gone: a large disk is not walked to its end for nobody."""
    cancel = Cancellation()
    progress = Recorder(on_start=lambda _item: cancel.set())

    def measure() -> None:
        begin_operation(cancel)
        Usage(store.backing, others=others).measure(progress=progress)

    with pytest.raises(InterruptedOperationError):
        copy_context().run(measure)
    assert len(progress.started) == 1
