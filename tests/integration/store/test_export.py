"""Export of images from a real containerd, read back by us and by the neighbours."""

import io
import json
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from cas.containerd.client import Containerd
from cas.errors import (
    CasError,
    ContentMissingError,
    CorruptBlobError,
    DiffIDMismatchError,
    ImageNotFoundError,
    InterruptedOperationError,
    LayerError,
    PlatformNotFoundError,
    StorageError,
    UsageError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.platforms import parse_platform
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.image.images import ArchiveFormat, Images
from tests.support.images import (
    BuiltImage,
    Compression,
    attestation,
    build_image,
    build_index,
    layered_image,
)
from tests.support.layers import BuiltLayer, build_layer, file
from tests.support.stores import assert_nothing_left, backing_for, blob_file, own_blobs

pytestmark = pytest.mark.once  # archives: of containerd it takes blobs

AMD64 = parse_platform("linux/amd64")
ARM64 = parse_platform("linux/arm64")


@pytest.fixture
def backing(containerd: Containerd, settings: Settings) -> Backing:
    return backing_for(containerd, settings)


@pytest.fixture
def images(backing: Backing) -> Images:
    return Images(backing, platform=AMD64)


@pytest.fixture
def add(images: Images, tmp_path: Path) -> Callable[[BuiltImage], BuiltImage]:
    """Import a built image."""

    def add(image: BuiltImage) -> BuiltImage:
        images.import_archive(image.write_oci_tar(tmp_path / "given.tar"))
        return image

    return add


Add = Callable[[BuiltImage], BuiltImage]


def mixed(**options: object) -> BuiltImage:
    """Layers of every compression, one of them twice."""
    layers = [
        build_layer([file(f"f{number}", bytes([number]) * 50_000)], compression)
        for number, compression in enumerate(Compression)
    ]
    return build_image([*layers, layers[2]], platform="linux/amd64", **options)  # type: ignore[arg-type]


def gzipped() -> BuiltImage:
    return layered_image(3, name="example.com/test/gzipped:2", platform="linux/amd64")


def index() -> BuiltImage:
    arm64 = layered_image(2, platform="linux/arm64", seed="arm64")
    return build_index([mixed(), build_index([arm64]), attestation(mixed())])


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def members(path: Path) -> dict[str, bytes]:
    """Regular members of a tar."""
    with tarfile.open(path) as tar:
        return {
            member.name: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isreg()
        }


@pytest.mark.parametrize("make", [mixed, index])
def test_export_oci_has_every_blob_unchanged(
    make: Callable[[], BuiltImage], images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """All blobs are in the archive under their digests, and the index names the image."""
    image = add(make())
    images.export(image.name, tmp_path / "out.tar")
    found = members(tmp_path / "out.tar")
    blobs = {f"sha256:{name[13:]}": data for name, data in found.items() if "blobs" in name}
    assert blobs == image.blobs
    [root] = json.loads(found["index.json"])["manifests"]
    assert (root["digest"], root["mediaType"]) == (image.digest, image.root["mediaType"])
    assert root["annotations"] == {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": "1.0",
    }
    assert_nothing_left(backing)


def test_export_again_gives_the_same_bytes(images: Images, add: Add, tmp_path: Path) -> None:
    """The archive depends on the image alone: to a file or to a stream, now or later."""
    image = add(index())
    for archive_format in ArchiveFormat:
        images.export(image.name, tmp_path / "out.tar", format=archive_format)
        stream = io.BytesIO()
        images.export(image.name, stream, format=archive_format.value)
        assert stream.getvalue() == (tmp_path / "out.tar").read_bytes()


@pytest.mark.parametrize("make", [mixed, gzipped, index])
def test_export_oci_imported_again_is_the_same_image(
    make: Callable[[], BuiltImage], images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """Out and in again gives the same name, digest and blobs."""
    image = add(make())
    before = images.get(image.name)
    images.export(image.name, tmp_path / "out.tar")
    images.remove(image.name)
    backing.leases.collect_garbage()
    assert own_blobs(backing) == set()
    [after] = images.import_archive(tmp_path / "out.tar")
    assert (after.name, after.target) == (before.name, before.target)
    assert own_blobs(backing) == {Digest.parse(digest) for digest in image.blobs}


def test_export_index_with_holes_is_imported_again(
    images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """Platforms that were not fetched are left out, and the rest is a valid archive."""
    complete = index()
    arm64 = layered_image(2, platform="linux/arm64", seed="arm64")
    image = add(complete.without(*arm64.blobs))
    images.export(image.name, tmp_path / "out.tar")
    images.remove(image.name)
    backing.leases.collect_garbage()
    [record] = images.import_archive(tmp_path / "out.tar")
    assert str(record.target.digest) == complete.digest
    assert images.resolve(record.name).layers


def test_export_oci_is_accepted_by_skopeo(images: Images, add: Add, tmp_path: Path) -> None:
    """skopeo reports the same digest and layers, and copies all of it."""
    image = add(mixed())
    images.export(image.name, tmp_path / "out.tar")
    source = f"oci-archive:{tmp_path / 'out.tar'}"
    shown = json.loads(run("skopeo", "inspect", source))
    assert shown["Digest"] == image.digest
    assert shown["Layers"] == [layer.digest for layer in image.layers]
    target = f"oci:{tmp_path / 'copied'}"
    run("skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", source, target)
    assert json.loads(run("skopeo", "inspect", target))["Digest"] == image.digest


@pytest.mark.parametrize("archive_format", ["oci", "docker"])
def test_export_is_accepted_by_skopeo_as_docker_archive(
    archive_format: str, images: Images, add: Add, tmp_path: Path
) -> None:
    """What docker's engine reads of either format is a valid docker archive."""
    image = add(mixed())
    images.export(image.name, tmp_path / "out.tar", format=archive_format)  # type: ignore[arg-type]
    source = f"docker-archive:{tmp_path / 'out.tar'}"
    assert json.loads(run("skopeo", "inspect", "--config", source)) == json.loads(image.config)
    target = f"dir:{tmp_path / 'copied'}"
    run("skopeo", "--insecure-policy", "copy", source, target)


@pytest.mark.parametrize("make", [mixed, gzipped, index])
def test_export_oci_is_accepted_by_ctr(
    make: Callable[[], BuiltImage],
    images: Images,
    containerd: Containerd,
    settings: Settings,
    add: Add,
    tmp_path: Path,
) -> None:
    """ctr imports it under the same name with the same digest, and unpacks it."""
    image = add(make())
    images.export(image.name, tmp_path / "out.tar")
    images.remove(image.name)
    run(
        "ctr", "--address", settings.socket, "--namespace", settings.namespace,
        "images", "import", "--snapshotter", settings.snapshotter, tmp_path / "out.tar",
    )  # fmt: skip
    record = containerd.images.get(image.name)
    assert str(record.target.digest) == image.digest


def test_export_docker_has_no_zstd_and_imports_with_the_same_layers(
    images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """Only zstd layers change, to what they hold; config and diff IDs stay."""
    image = add(mixed())
    images.export(image.name, tmp_path / "out.tar", format="docker")
    found = members(tmp_path / "out.tar")
    [entry] = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == [image.name]
    assert found[entry["Config"]] == image.config
    for layer, name in zip(image.layers, entry["Layers"], strict=True):
        zstd_layer = layer.compression is Compression.ZSTD
        assert found[name] == (layer.tar if zstd_layer else layer.blob)
    images.remove(image.name)
    backing.leases.collect_garbage()
    images.import_archive(tmp_path / "out.tar")
    resolved = images.resolve(image.name)
    assert [str(layer.diff_id) for layer in resolved.layers] == image.diff_ids
    assert str(resolved.config_descriptor.digest) == image.config_digest
    assert_nothing_left(backing)


def test_export_docker_takes_the_platform_that_was_asked_for(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """One platform is in a docker archive: this machine's or the one asked for."""
    image = add(index())
    for platform in (AMD64, ARM64):
        images.export(image.name, tmp_path / "out.tar", format="docker", platform=platform)
        found = members(tmp_path / "out.tar")
        [entry] = json.loads(found["manifest.json"])
        assert json.loads(found[entry["Config"]])["architecture"] == platform.architecture
    with pytest.raises(PlatformNotFoundError):
        images.export(
            image.name, tmp_path / "no", format="docker", platform=parse_platform("s390x")
        )
    assert not (tmp_path / "no").exists()


def test_export_of_artifact_has_no_docker_manifest(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """What docker could not load is not offered to it."""
    image = add(attestation(mixed()).named("example.com/statement:1"))
    images.export(image.name, tmp_path / "out.tar")
    assert "manifest.json" not in members(tmp_path / "out.tar")


def test_export_under_a_name_that_docker_does_not_take_has_no_tag(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """docker loads it nameless; containerd gets the name as it is."""
    image = add(gzipped())
    images.tag(image.name, "My Image#1")
    images.export("My Image#1", tmp_path / "out.tar")
    found = members(tmp_path / "out.tar")
    assert json.loads(found["manifest.json"])[0]["RepoTags"] == []
    [root] = json.loads(found["index.json"])["manifests"]
    assert root["annotations"] == {"io.containerd.image.name": "My Image#1"}


def test_export_to_a_file_replaces_it_when_it_is_whole(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """The old file is there until the new one is; links are followed; nothing else appears."""
    image = add(gzipped())
    directory = tmp_path / "out"
    directory.mkdir()
    (directory / "real.tar").write_bytes(b"old")
    (directory / "link.tar").symlink_to("real.tar")
    images.export(image.name, directory / "link.tar")
    assert (directory / "link.tar").is_symlink()
    assert "index.json" in members(directory / "real.tar")
    assert stat.S_IMODE((directory / "real.tar").stat().st_mode) == 0o600
    assert sorted(path.name for path in directory.iterdir()) == ["link.tar", "real.tar"]


def test_export_to_devices_and_pipes_writes_into_them(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """A device stays a device, and a pipe gets the bytes."""
    image = add(gzipped())
    images.export(image.name, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(
        target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True
    )
    reader.start()
    images.export(image.name, tmp_path / "pipe")
    reader.join()
    stream = io.BytesIO()
    images.export(image.name, stream)
    assert received == [stream.getvalue()]


def test_export_to_a_reader_that_went_away_is_an_error(images: Images, add: Add) -> None:
    """A broken pipe is an error of ours."""
    image = add(gzipped())
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as stream, pytest.raises(StorageError):
        images.export(image.name, stream)


def test_export_to_impossible_places_is_refused(images: Images, add: Add, tmp_path: Path) -> None:
    """A directory, a missing directory, an unknown format and an unknown image."""
    image = add(gzipped())
    with pytest.raises(UsageError):
        images.export(image.name, tmp_path)
    with pytest.raises(UsageError):
        images.export(image.name, tmp_path / "absent" / "out.tar")
    with pytest.raises(UsageError):
        images.export(image.name, tmp_path / "out.tar", format="zip")  # type: ignore[arg-type]
    with pytest.raises(ImageNotFoundError):
        images.export("absent", tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def spoil(path: Path, change: Callable[[bytearray], object]) -> None:
    """Change a stored blob behind containerd's back."""
    data = bytearray(path.read_bytes())
    change(data)
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("archive_format", ["oci", "docker"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_export_of_a_spoilt_blob_is_an_error_and_leaves_the_old_file(
    layer: int, archive_format: str, images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """Blobs are hashed on their way out; a wrong one never makes an archive."""
    image = add(mixed())
    (tmp_path / "out.tar").write_bytes(b"old")

    def flip(data: bytearray) -> None:
        data[len(data) // 2] ^= 1

    spoil(blob_file(backing, Digest.parse(image.layers[layer].digest)), flip)
    with pytest.raises((CorruptBlobError, LayerError)):
        images.export(image.name, tmp_path / "out.tar", format=archive_format)  # type: ignore[arg-type]
    assert (tmp_path / "out.tar").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.tar", "out.tar"]
    assert_nothing_left(backing)


def test_export_of_a_blob_that_was_cut_is_an_error(
    images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """A tar never holds fewer bytes than its header says."""
    image = add(gzipped())
    path = blob_file(backing, Digest.parse(image.layers[0].digest))
    spoil(path, bytearray.pop)
    with pytest.raises(CasError) as caught:
        images.export(image.name, tmp_path / "out.tar")
    assert caught.value.kind == "integrity"
    assert not (tmp_path / "out.tar").exists()


def test_export_docker_of_a_zstd_layer_with_another_diff_id_is_refused(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """What is decompressed must be what the config names."""
    layer = build_layer([file("f", b"x" * 1000)], Compression.ZSTD)
    lie = build_layer([file("f", b"y")], Compression.NONE)
    image = add(build_image([layer], platform="linux/amd64", diff_ids=[lie.diff_id]))
    with pytest.raises(DiffIDMismatchError):
        images.export(image.name, tmp_path / "out.tar", format="docker")
    images.export(image.name, tmp_path / "oci.tar")


def test_export_docker_of_a_damaged_zstd_layer_is_refused(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """A layer that is no zstd stream behind its first bytes is an error of the layer."""
    blob = zstd.compress(b"tar" * 1000)[:-4]
    layer = BuiltLayer(b"tar" * 1000, blob, Compression.ZSTD)
    image = add(build_image([layer], platform="linux/amd64"))
    with pytest.raises(LayerError):
        images.export(image.name, tmp_path / "out.tar", format="docker")
    assert not (tmp_path / "out.tar").exists()


def test_export_of_an_image_that_lost_content_is_refused(
    images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """What is not complete is not exported as if it were."""
    image = add(mixed())
    backing.content.delete(Digest.parse(image.layers[1].digest))
    with pytest.raises(ContentMissingError, match=image.layers[1].digest):
        images.export(image.name, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_export_without_a_layer_that_only_its_owner_gives_out(
    images: Images, add: Add, tmp_path: Path
) -> None:
    """The archive has the same hole, and none that docker would fall into."""
    whole = layered_image(2).with_foreign_layer(0, ["https://example.com/layer"])
    image = add(whole.without(whole.layers[0].digest))
    images.export(image.name, tmp_path / "oci.tar")
    with tarfile.open(tmp_path / "oci.tar") as archive:
        names = archive.getnames()
    assert f"blobs/sha256/{whole.layers[0].digest.removeprefix('sha256:')}" not in names
    assert f"blobs/sha256/{whole.layers[1].digest.removeprefix('sha256:')}" in names
    assert "manifest.json" not in names
    [record] = images.import_archive(tmp_path / "oci.tar")
    assert str(record.target.digest) == image.digest
    with pytest.raises(ContentMissingError, match=r"https://example\.com/layer"):
        images.export(image.name, tmp_path / "docker.tar", format="docker")
    assert not (tmp_path / "docker.tar").exists()


def test_export_stopped_by_the_caller_leaves_nothing(
    images: Images, backing: Backing, add: Add, tmp_path: Path
) -> None:
    """A flag that is set ends the export."""
    image = add(mixed())
    cancel = Cancellation()
    cancel.set()
    with pytest.raises(InterruptedOperationError):
        images.export(image.name, tmp_path / "out.tar", cancel=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["given.tar"]
    assert_nothing_left(backing)


def test_export_goes_on_although_the_image_is_removed_meanwhile(
    images: Images, backing: Backing, add: Add
) -> None:
    """The lease keeps the content until the last byte is out."""
    image = add(mixed())

    class Removing(io.BytesIO):
        """A stream whose first write removes the image and collects."""

        def write(self, data: object, /) -> int:
            if self.tell() == 0:
                images.remove(image.name)
                backing.leases.collect_garbage()
            return super().write(data)  # type: ignore[arg-type]

    stream = Removing()
    images.export(image.name, stream)
    backing.leases.collect_garbage()
    assert own_blobs(backing) == set()
    [record] = images.import_archive(io.BytesIO(stream.getvalue()))
    assert str(record.target.digest) == image.digest
