"""What Docker accepts of our exports; needs a Docker daemon, which hack/docker starts."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.model.platforms import parse_platform
from cas.model.settings import Settings
from cas.store.image.images import ArchiveFormat, Images
from tests.support.images import BuiltImage, Compression, build_image, layered_image
from tests.support.layers import build_layer, file
from tests.support.stores import backing_for

PLATFORM = "linux/amd64"
NAME = "example.com/eve-cas/loaded:1"


def docker(*arguments: str | Path) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def images(containerd: Containerd, settings: Settings) -> Images:
    return Images(backing_for(containerd, settings), platform=parse_platform(PLATFORM))


@pytest.fixture
def _removed_from_docker() -> Iterator[None]:
    yield
    docker("image", "rm", "--force", NAME)


def gzipped() -> BuiltImage:
    return layered_image(3, name=NAME, platform=PLATFORM)


def every_compression() -> BuiltImage:
    layers = [
        build_layer([file(f"f{number}", bytes([number]) * 50_000)], compression)
        for number, compression in enumerate(Compression)
    ]
    return build_image(layers, name=NAME, platform=PLATFORM)


@pytest.mark.usefixtures("_removed_from_docker")
@pytest.mark.parametrize(
    ("image", "archive_format"),
    [(gzipped(), "oci"), (gzipped(), "docker"), (every_compression(), "docker")],
    ids=["oci", "docker", "docker-every-compression"],
)
def test_export_loaded_by_docker_has_our_layers(
    image: BuiltImage, archive_format: ArchiveFormat, images: Images, tmp_path: Path
) -> None:
    """docker load takes the archive, names the image as we do and finds the same layers."""
    images.import_archive(image.write_oci_tar(tmp_path / "given.tar"))
    images.export(NAME, tmp_path / "out.tar", format=archive_format)
    assert NAME in docker("load", "--input", tmp_path / "out.tar")
    [loaded] = json.loads(docker("image", "inspect", NAME))
    assert loaded["RootFS"]["Layers"] == image.diff_ids
