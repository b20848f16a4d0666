"""Disk volumes made from images of every kind, and blank ones."""

import gzip
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd

from cas.containerd.client import Containerd
from cas.errors import (
    AmbiguousDiskError,
    BlobNotFoundError,
    CasError,
    CorruptBlobError,
    DiskFormatError,
    DiskImageError,
    DiskNotFoundError,
    ImageNotFoundError,
    LimitExceededError,
    MalformedArchiveError,
    StorageError,
    UsageError,
    VolumeConflictError,
    VolumeNotFoundError,
    VolumeSizeError,
)
from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.media_types import OCI_LAYER_GZIP
from cas.model.settings import Settings
from cas.store.check.check import Check
from cas.volumes.volumes import VolumeState
from tests.support.disks import (
    DISK_LAYER,
    MIB,
    add_disk,
    changed,
    content_of,
    iso_image,
    qemu_image_with_snapshots,
    virtual_size,
)
from tests.support.images import BuiltImage
from tests.support.volumes import Recorder, Store, open_store, volume_name

pytestmark = pytest.mark.once  # files of disks: of containerd they take a blob

PATH = {"org.lfedge.eci.artifact.root": "/disk/root.img"}
ROLE = {"org.lfedge.eci.role": "disk-root"}


def tarred(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("disk_format", ["raw", "qcow2", "vmdk", "vhdx"])
def test_prepare_copies_an_image_of_every_format(
    store: Store, images: Callable[..., bytes], disk: bytes, tmp_path: Path, disk_format: str
) -> None:
    """The volume is one file with the disk's bytes, root's, and needs the image no more."""
    reference = add_disk(store, images(disk_format), annotations=ROLE)
    name = volume_name()

    status = store.volumes.prepare_disk(name, DiskRequest(reference))

    assert status.disk is not None
    assert status.disk.path == store.settings.layout.volumes / str(name)
    assert status.disk.format == DiskFormat(disk_format)
    assert status.disk.virtual_size == len(disk)
    assert status.state is VolumeState.INACTIVE
    assert content_of(status.disk.path, disk_format, tmp_path) == disk
    found = status.disk.path.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o660)
    store.assert_nothing_is_running()


def test_copy_of_a_raw_image_has_holes(store: Store, disk: bytes) -> None:
    """What is zero takes no room, although the blob's file may be full."""
    reference = add_disk(store, disk)

    status = store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    assert status.disk is not None
    assert status.disk.allocated <= 3 * 64 * 1024
    assert status.disk.path.read_bytes() == disk


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_prepare_decompresses_what_is_compressed(
    store: Store,
    images: Callable[..., bytes],
    disk: bytes,
    tmp_path: Path,
    compress: Callable[[bytes], bytes],
    disk_format: str,
) -> None:
    """By content, whatever the media type says."""
    reference = add_disk(store, compress(images(disk_format)))
    progress = Recorder()

    status = store.volumes.prepare_disk(volume_name(), DiskRequest(reference), progress=progress)

    assert status.disk is not None
    assert status.disk.format == DiskFormat(disk_format)
    assert content_of(status.disk.path, disk_format, tmp_path) == disk
    assert progress.advanced == len(compress(images(disk_format)))
    assert progress.started == progress.finished == [str(status.name)]


def test_prepare_takes_the_disk_out_of_a_layer(
    store: Store, images: Callable[..., bytes], disk: bytes
) -> None:
    """The config's label names it, and the topmost layer that has it wins."""
    lower = tarred(("disk/root.img", b"old"), ("other", b"x"))
    upper = tarred(("a", b"b"), ("./disk/root.img", images("raw")), ("z", b"z"))
    top = tarred(("unrelated", b"x"))
    reference = add_disk(store, lower, upper, top, media_type=OCI_LAYER_GZIP, labels=PATH)

    status = store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    assert status.disk is not None
    assert status.disk.path.read_bytes() == disk


def test_prepare_takes_a_bare_blob(store: Store, disk: bytes) -> None:
    """It counts as the image it would be wrapped in, so that both are the same origin."""
    add_disk(store, disk)
    digest = next(
        blob.digest for blob in store.backing.content.iter_blobs() if blob.size == len(disk)
    )
    name = volume_name()

    status = store.volumes.prepare_disk(name, DiskRequest(str(digest)))

    assert status.disk is not None
    assert status.disk.record is not None
    assert status.disk.record.origin is not None
    assert status.disk.record.origin.blob_digest == digest
    assert status.disk.path.read_bytes() == disk


def test_wrapped_blob_is_the_same_origin_as_the_bare_one(store: Store, disk: bytes) -> None:
    """The same manifest each time, and an image like any other."""
    with store.leasing.hold("test") as lease:
        digest = Digest.of(disk)
        store.backing.content.put("t", lease.id, disk, digest, {})
        name = volume_name()
        bare = store.volumes.prepare_disk(name, DiskRequest(str(digest)))
        record = store.images.wrap_disk("disk:1", digest)
    store.backing.leases.collect_garbage()

    assert store.images.wrap_disk("disk:2", digest).target == record.target
    assert store.images.resolve_disk("disk:1").artifact.layers[0].digest == digest
    assert store.volumes.prepare_disk(name, DiskRequest("disk:1")) == bare
    assert bare.disk is not None
    assert bare.disk.record is not None
    assert bare.disk.record.origin is not None
    assert bare.disk.record.origin.manifest_digest == record.target.digest
    check = Check(store.backing, platform=store.images.platform, judge=store.volumes.iter_volumes)
    assert list(check.run()) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("qcow2", "raw"), ("raw", "qcow2"), ("vmdk", "qcow2"), ("vhdx", "raw"), ("qcow2", "vmdk")],
)
def test_prepare_converts_on_request(
    store: Store,
    images: Callable[..., bytes],
    disk: bytes,
    tmp_path: Path,
    before: str,
    after: str,
) -> None:
    """The same disk in another format."""
    reference = add_disk(store, images(before))
    request = DiskRequest(reference, format=DiskFormat(after))

    status = store.volumes.prepare_disk(volume_name(), request)

    assert status.disk is not None
    assert status.disk.format == DiskFormat(after)
    assert content_of(status.disk.path, after, tmp_path) == disk
    store.assert_nothing_is_running()


def test_prepare_converts_what_was_compressed(
    store: Store, images: Callable[..., bytes], disk: bytes
) -> None:
    """Nothing of the way there is left."""
    reference = add_disk(store, gzip.compress(images("qcow2")))

    status = store.volumes.prepare_disk(
        volume_name(), DiskRequest(reference, size=5 * MIB, format=DiskFormat.RAW)
    )

    assert status.disk is not None
    assert status.disk.path.read_bytes() == disk + bytes(MIB)
    store.assert_nothing_is_running()


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_prepare_grows_to_the_size_asked_for(
    store: Store, images: Callable[..., bytes], disk: bytes, tmp_path: Path, disk_format: str
) -> None:
    """What is behind the image reads as zeros."""
    reference = add_disk(store, images(disk_format))

    status = store.volumes.prepare_disk(volume_name(), DiskRequest(reference, size=6 * MIB + 1))

    assert status.disk is not None
    assert status.disk.virtual_size == 6 * MIB + 512, "whole sectors"
    assert virtual_size(status.disk.path, disk_format) == 6 * MIB + 512
    assert content_of(status.disk.path, disk_format, tmp_path) == disk + bytes(2 * MIB + 512)


def test_image_with_many_snapshots_of_its_own_is_a_disk_like_any_other(
    store: Store, tmp_path: Path
) -> None:
    """What qemu-img tells of the most, some 1 MB, is heard to its end; ours come on top."""
    name = volume_name()
    image = qemu_image_with_snapshots(tmp_path / "image", 4096)
    store.volumes.prepare_disk(name, DiskRequest(add_disk(store, image)))
    assert store.volume_snapshots.create([name], "one")
    assert store.volumes.get(name).problem is None


def test_iso_is_never_resized(store: Store) -> None:
    """It is what its content says, also when more was asked for."""
    reference = add_disk(store, iso_image())

    status = store.volumes.prepare_disk(volume_name(), DiskRequest(reference, size=9 * MIB))

    assert status.disk is not None
    assert status.disk.format is DiskFormat.ISO
    assert status.disk.path.read_bytes() == iso_image()


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
@pytest.mark.parametrize("clear", [False, True])
def test_blank_disk_has_the_size_asked_for_and_nothing_in_it(
    store: Store, tmp_path: Path, disk_format: str, clear: bool
) -> None:
    """Sparse, in the vault or in clear."""
    request = DiskRequest(None, size=8 * MIB, format=DiskFormat(disk_format), clear=clear)
    name = volume_name()

    status = store.volumes.prepare_disk(name, request)

    layout = store.settings.layout
    assert status.disk is not None
    assert status.disk.path.parent == (layout.clear_volumes if clear else layout.volumes)
    assert status.disk.clear is clear
    assert status.disk.allocated < MIB
    assert content_of(status.disk.path, disk_format, tmp_path) == bytes(8 * MIB)
    assert store.volumes.prepare_disk(name, request) == status
    assert store.volumes.remove(name)
    assert not os.path.lexists(status.disk.path)
    store.assert_nothing_is_running()


def test_read_only_disk_cannot_be_written_by_others(store: Store, disk: bytes) -> None:
    """Its mode says so, and its record."""
    request = DiskRequest(add_disk(store, disk), read_only=True)

    status = store.volumes.prepare_disk(volume_name(), request)

    assert status.disk is not None
    assert status.disk.record is not None
    assert status.disk.record.read_only
    assert stat.S_IMODE(status.disk.path.stat().st_mode) == 0o440


def test_prepare_again_leaves_the_data_alone_also_without_the_image(
    store: Store, disk: bytes
) -> None:
    """The volume needs nothing of its image."""
    reference = add_disk(store, disk)
    name, request = volume_name(), DiskRequest(reference, size=5 * MIB)
    status = store.volumes.prepare_disk(name, request)
    assert status.disk is not None
    with status.disk.path.open("r+b") as file:
        file.write(b"QFI\xfb what a guest may write")
    assert store.images.remove(reference)
    store.backing.leases.collect_garbage()

    again = store.volumes.prepare_disk(name, request)

    assert again.disk is not None
    assert again.state is VolumeState.INACTIVE
    assert again.disk.format is DiskFormat.RAW
    assert again.disk.path.read_bytes().startswith(b"QFI\xfb what")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 9 * MIB}, "with size"),
        ({"size": None}, "with size"),
        ({"format": DiskFormat.QCOW2}, "in format raw"),
        ({"read_only": True}, "writable"),
        ({"clear": True}, "in the vault"),
        ({"source": None}, "from image"),
        ({"source": "other"}, "from manifest"),
    ],
)
def test_another_disk_under_the_same_name_is_a_conflict(
    store: Store, disk: bytes, change: dict[str, object], words: str
) -> None:
    """The volume stays as it is."""
    reference = add_disk(store, disk)
    if change.get("source") == "other":
        change = {"source": add_disk(store, b"other" * 1000)}
    name = volume_name()
    before = store.volumes.prepare_disk(name, DiskRequest(reference, size=5 * MIB))
    asked = {"source": reference, "size": 5 * MIB, **change}

    with pytest.raises(VolumeConflictError, match=words):
        store.volumes.prepare_disk(name, DiskRequest(**asked))  # type: ignore[arg-type]

    assert store.volumes.get(name) == before


@pytest.mark.parametrize("clear", [False, True])
def test_disk_and_container_of_one_name_are_a_conflict_both_ways(
    store: Store, image: BuiltImage, clear: bool
) -> None:
    """Wherever the disk is."""
    disk_name, container_name = volume_name(), volume_name()
    request = DiskRequest(None, size=MIB, clear=clear)
    store.volumes.prepare_disk(disk_name, request)
    store.volumes.prepare(container_name, image.name)

    with pytest.raises(VolumeConflictError, match="not a container volume"):
        store.volumes.prepare(disk_name, image.name)
    with pytest.raises(VolumeConflictError, match="not a disk volume"):
        store.volumes.prepare_disk(container_name, request)


def test_disk_that_we_did_not_make_is_given_back_as_it_is(store: Store, disk: bytes) -> None:
    """Nobody knows what it was made from, so that nobody can say that it is another one."""
    name = volume_name()
    path = store.settings.layout.volumes / str(name)
    path.write_bytes(disk)

    status = store.volumes.prepare_disk(name, DiskRequest(None, size=MIB))

    assert status.disk is not None
    assert status.disk.record is None
    assert path.read_bytes() == disk


@pytest.mark.parametrize(
    ("layers", "options", "error"),
    [
        (("qcow2",), {"media_type": f"{DISK_LAYER}+vmdk"}, DiskFormatError),
        (("raw",), {"media_type": f"{DISK_LAYER}+qcow2"}, DiskFormatError),
        (("raw", "qcow2"), {}, AmbiguousDiskError),
        (("raw",), {"media_type": OCI_LAYER_GZIP}, DiskNotFoundError),
        (("truncated",), {"media_type": f"{DISK_LAYER}+qcow2"}, DiskImageError),
        (("forged",), {"media_type": f"{DISK_LAYER}+qcow2"}, DiskImageError),
    ],
)
def test_image_that_is_no_usable_disk_is_refused_and_leaves_nothing(
    store: Store,
    images: Callable[..., bytes],
    layers: tuple[str, ...],
    options: dict[str, str],
    error: type[CasError],
) -> None:
    """Each with its own error, which README explains."""
    qcow2 = images("qcow2")
    special = {
        "truncated": qcow2[:3000],
        # The table's first entry leads far beyond the end.
        "forged": qcow2.replace(qcow2[24:32], (2**63).to_bytes(8, "big"), 1),
    }
    data = [special[each] if each in special else images(each) for each in layers]
    reference = add_disk(store, *data, **options)  # type: ignore[arg-type]

    with pytest.raises(error):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()
    assert list(store.volumes.iter_volumes()) == []


@pytest.mark.once
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("disk_format", "options", "error"),
    [
        ("qcow2", ("-b", "{secret}", "-F", "raw"), DiskImageError),
        ("qcow2", ("-o", "data_file={other},data_file_raw=on"), DiskImageError),
        ("vmdk", ("-o", "subformat=monolithicFlat"), DiskFormatError),
    ],
)
def test_image_that_refers_to_other_files_is_refused_whoever_made_it(
    store: Store,
    tmp_path: Path,
    disk_format: str,
    options: tuple[str, ...],
    error: type[CasError],
    compressed: bool,
) -> None:
    """As qemu-img itself writes it, with files that are there: root could read them."""
    secret, image = tmp_path / "secret", tmp_path / "image"
    secret.write_bytes(b"secret" + bytes(4 * MIB - 6))
    named = [each.format(secret=secret, other=tmp_path / "other") for each in options]
    command = ["qemu-img", "create", "-q", "-f", disk_format, *named, str(image), "4M"]
    subprocess.run(command, check=True, capture_output=True)
    data = image.read_bytes()
    reference = add_disk(store, gzip.compress(data) if compressed else data)

    for wanted in (None, DiskFormat.RAW):
        with pytest.raises(error):
            store.volumes.prepare_disk(volume_name(), DiskRequest(reference, format=wanted))

    store.assert_nothing_is_running()
    assert list(store.volumes.iter_volumes()) == []


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vhdx"])
@pytest.mark.parametrize("converted", [False, True])
def test_image_whose_data_are_cut_off_is_refused(
    store: Store, images: Callable[..., bytes], disk_format: str, converted: bool
) -> None:
    """Qemu by itself would read zeros there."""
    data = images(disk_format)
    reference = add_disk(store, data[: len(data) - 128 * 1024])
    request = DiskRequest(reference, format=DiskFormat.RAW if converted else None)

    with pytest.raises(DiskImageError, match=r"tables do not lead|cannot read"):
        store.volumes.prepare_disk(volume_name(), request)

    store.assert_nothing_is_running()


def test_bomb_is_stopped_at_the_limit(containerd: Containerd, settings: Settings) -> None:
    """Compressed zeros take no room, and still there is an end to them."""
    limits = replace(settings.limits, layer_expansion=20, layer_expansion_floor_bytes=8 * MIB)
    store = open_store(containerd, replace(settings, limits=limits))
    reference = add_disk(store, gzip.compress(bytes(64 * MIB)))

    with pytest.raises(LimitExceededError, match="expands"):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda data: data[:-20], MalformedArchiveError),
        (lambda data: data[:1000] + bytes(50) + data[1050:], MalformedArchiveError),
    ],
)
def test_damaged_compression_is_refused(
    store: Store, damage: Callable[[bytes], bytes], error: type[CasError]
) -> None:
    """Cut off, or with other bytes inside."""
    reference = add_disk(store, damage(gzip.compress(os.urandom(MIB))))

    with pytest.raises(error):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()


def test_blob_whose_file_was_cut_is_refused(store: Store) -> None:
    """What is missing must not become zeros."""
    data = b"disk" * 1000
    reference = add_disk(store, data)
    assert store.backing.blobs_directory is not None
    os.truncate(store.backing.blobs_directory / Digest.of(data).hex, 1000)

    with pytest.raises(CorruptBlobError, match="has 1000 bytes, expected 4000"):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()


@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.QCOW2])
def test_blob_that_was_damaged_later_is_refused_where_blobs_are_verified(
    containerd: Containerd, settings: Settings, disk: bytes, disk_format: DiskFormat
) -> None:
    """Copied or converted; what is whole is copied all the same, and what is read is told."""
    owners = {**settings.owners, "verifier": "nobody"}
    limits = replace(settings.limits, verify_disks=True)
    store = open_store(containerd, replace(settings, limits=limits, owners=owners))
    request = DiskRequest(add_disk(store, disk), format=disk_format)
    assert store.backing.blobs_directory is not None
    blob = store.backing.blobs_directory / Digest.of(disk).hex
    blob.write_bytes(changed(disk, 3 * MIB, b"damage"))

    with pytest.raises(CorruptBlobError, match="digest"):
        store.volumes.prepare_disk(volume_name(), request)

    store.assert_nothing_is_running()
    blob.write_bytes(disk)
    progress = Recorder()
    store.volumes.prepare_disk(volume_name(), request, progress=progress)
    assert progress.advanced > len(disk)


def test_disk_beyond_the_limit_is_refused(containerd: Containerd, settings: Settings) -> None:
    """Also where nobody minds how full it may become."""
    limits = replace(settings.limits, thin_disks=True, disk_bytes=MIB)
    store = open_store(containerd, replace(settings, limits=limits))

    with pytest.raises(LimitExceededError, match="more than the 1048576"):
        store.volumes.prepare_disk(volume_name(), DiskRequest(None, size=MIB + 1))

    store.assert_nothing_is_running()


def test_disk_that_no_file_of_the_file_system_can_be_is_refused(
    containerd: Containerd, settings: Settings
) -> None:
    """ext4 has none of 20 TiB, also where disks may be thin; in qcow2 such a disk is small."""
    owners = {**settings.owners, "verifier": "nobody"}
    limits = replace(settings.limits, thin_disks=True)
    store = open_store(containerd, replace(settings, limits=limits, owners=owners))
    request = DiskRequest(None, size=20 * 1024 * 1024 * MIB)

    with pytest.raises(StorageError, match="no files so large"):
        store.volumes.prepare_disk(volume_name(), request)

    store.assert_nothing_is_running()
    name = volume_name()
    status = store.volumes.prepare_disk(name, replace(request, format=DiskFormat.QCOW2))
    assert status.disk is not None
    assert (status.disk.virtual_size, status.disk.allocated < MIB) == (request.size, True)


def test_layer_without_the_named_file_is_refused(store: Store) -> None:
    """The label promises what no layer has; a link of the name is no disk."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        link = tarfile.TarInfo("disk/root.img")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(link)
    layers = (tarred(("other", b"x")), stream.getvalue())
    reference = add_disk(store, *layers, media_type=OCI_LAYER_GZIP, labels=PATH)

    with pytest.raises(DiskNotFoundError, match="no layer of the image has a file"):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()


def test_size_smaller_than_the_image_is_refused(store: Store, images: Callable[..., bytes]) -> None:
    """A disk is never cut."""
    for disk_format in ("raw", "qcow2"):
        request = DiskRequest(add_disk(store, images(disk_format)), size=MIB)
        with pytest.raises(VolumeSizeError, match="never made smaller"):
            store.volumes.prepare_disk(volume_name(), request)
    request = DiskRequest(add_disk(store, images("vmdk")), size=9 * MIB)
    with pytest.raises(VolumeSizeError, match="cannot grow"):
        store.volumes.prepare_disk(volume_name(), request)
    store.assert_nothing_is_running()


def test_what_is_not_there_is_said_to_be_missing(store: Store, disk: bytes) -> None:
    """Image, blob, volume."""
    name = volume_name()
    with pytest.raises(ImageNotFoundError):
        store.volumes.prepare_disk(name, DiskRequest("nothing:1"))
    with pytest.raises(BlobNotFoundError):
        store.volumes.prepare_disk(name, DiskRequest(f"sha256:{'0' * 64}"))
    with pytest.raises(VolumeNotFoundError):
        store.volumes.activate(name)
    with pytest.raises(UsageError):
        DiskRequest(None)
