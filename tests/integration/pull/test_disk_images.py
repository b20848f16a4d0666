"""Images whose artifact is a disk, from a registry that nobody here wrote to a volume."""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.disk.wrapping import wrap_disk
from cas.model.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas
from tests.support.disks import DISK_LAYER, MIB, disk_layout, qemu_image
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.layers import file, layer_tar
from tests.support.registry import Registry
from tests.support.rpc import serve
from tests.support.volumes import volume_name

_ECI_CONFIG = "application/vnd.lfedge.eci.config.v1+json"
_ROLE = {"org.lfedge.eci.role": "disk-root"}
_ANOTHER = (f"{DISK_LAYER}+vmdk", b"another disk", {"org.lfedge.eci.role": "disk-additional"})
_DISK = b"boot" + bytes(MIB - 8) + b"tail"


@dataclass(frozen=True)
class Shape:
    """How an image says what its disk is."""

    media_type: str
    annotations: dict[str, str] = field(default_factory=dict)
    config: str = OCI_CONFIG
    labels: dict[str, str] = field(default_factory=dict)
    others: tuple[tuple[str, bytes, dict[str, str]], ...] = ()

    def write(self, directory: Path, content: bytes) -> Path:
        """Write the image as an OCI layout."""
        layers = (*self.others, (self.media_type, content, self.annotations))
        return disk_layout(directory, *layers, config_type=self.config, labels=self.labels)


_SHAPES = {
    "role": Shape(f"{DISK_LAYER}+qcow2", _ROLE, others=(_ANOTHER,)),
    "artifact": Shape(f"{DISK_LAYER}+raw", _ROLE, _ECI_CONFIG),
    "media-type": Shape(f"{DISK_LAYER}+raw"),
    "path": Shape(OCI_LAYER_GZIP, labels={"org.lfedge.eci.artifact.root": "/images/root.img"}),
}


def _content(shape: str, directory: Path) -> bytes:
    """The bytes of the layer that holds the disk."""
    if shape == "role":
        return qemu_image(directory / "image", "qcow2", content=_DISK)
    if shape == "path":
        return gzip.compress(layer_tar([file("etc/a", b"b"), file("images/root.img", _DISK)]))
    return _DISK


@pytest.mark.once
@pytest.mark.parametrize(
    ("shape", "way"),
    [("role", "always"), ("artifact", "never"), ("media-type", "always"), ("path", "never")],
)
def test_volume_prepare_pulls_a_disk_that_is_absent(
    case: Case,
    open_registry_server: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: str,
    way: str,
) -> None:
    """Whichever way the image names its disk; the second volume asks the registry for nothing."""
    content = _content(shape, tmp_path)
    repository = f"disks/{shape}"
    layout = _SHAPES[shape].write(tmp_path / "layout", content)
    open_registry_server.push(layout, f"{repository}:1")
    reference = f"docker://{open_registry_server.address}/{repository}:1"
    cas, names = Cas(case.settings, tmp_path, capsys), [volume_name(), volume_name()]

    with serve(case, tmp_path) as service:
        reach = ("--service", way, "--service-address", service.socket)
        told = [
            cas(*reach, "volume", "prepare", name, "--disk", reference, "--json") for name in names
        ]

    for result in told:
        assert result.status == 0, result
        volume = json.loads(result.out)
        assert volume["disk"]["blob_digest"] == str(Digest.of(content))
        expected = _DISK if shape == "path" else content
        assert Path(volume["disk"]["path"]).read_bytes() == expected
    assert len(open_registry_server.answers(f"{repository}/blobs/{Digest.of(content)}", 1)) == 1
    assert left_by(case) == NOTHING
    for name in names:
        case.volumes.remove(name)


def test_downloaded_disk_is_the_image_that_wraps_it_everywhere(
    case: Case, registry: HostileRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file becomes a volume by its digest, and an image of the same manifest on any machine."""
    url, digest = registry.on("/disk.img", resource(_DISK)), str(Digest.of(_DISK))
    cas, name = Cas(case.settings, tmp_path, capsys), volume_name()

    assert cas("download", url, "--digest", digest).status == 0
    volume = json.loads(cas("volume", "prepare", name, "--disk", digest, "--json").out)
    assert cas("image", "wrap", digest, "example.com/disk:1").status == 0

    wrapped = wrap_disk(Digest.of(_DISK), len(_DISK)).target.digest
    assert volume["disk"]["manifest_digest"] == str(wrapped)
    assert case.images.get("example.com/disk:1").target.digest == wrapped
    assert Path(volume["disk"]["path"]).read_bytes() == _DISK
    assert cas("volume", "prepare", name, "--disk", "example.com/disk:1").status == 0
    case.volumes.remove(name)
