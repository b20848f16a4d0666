"""The disk of an image, chosen by its documents."""

import pytest

from cas.errors import AmbiguousDiskError, DiskFormatError, DiskNotFoundError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.disk.artifact import DiskArtifact, select_disk
from cas.model.disk.format import DiskFormat
from cas.model.documents import Manifest
from cas.model.media_types import OCI_CONFIG, OCI_LAYER_GZIP

DISK = "application/vnd.lfedge.disk.layer.v1"
ROLE = {"org.lfedge.eci.role": "disk-root"}
PATH = {"org.lfedge.eci.artifact.root": "/disk-root-root"}


def layer(number: int, media_type: str, annotations: dict[str, str] | None = None) -> Descriptor:
    return Descriptor(media_type, Digest.of(bytes([number])), 1, None, annotations or {})


def manifest(*layers: Descriptor) -> Manifest:
    return Manifest(b"", Descriptor(OCI_CONFIG, Digest.of(b"c"), 1), layers, {}, "")


def test_wrapper_of_eve_has_its_blob_as_disk_whatever_format_it_claims() -> None:
    """``+raw`` is what EVE writes for every format, and the path there is the blob's title."""
    disk = layer(1, f"{DISK}+raw", ROLE)

    assert select_disk("i", manifest(disk), PATH) == DiskArtifact((disk,))


def test_role_wins_over_other_disks() -> None:
    """Additional disks beside the root are not its rivals."""
    root, more = layer(1, f"{DISK}+qcow2", ROLE), layer(2, f"{DISK}+vmdk")

    found = select_disk("i", manifest(more, root), {})

    assert found == DiskArtifact((root,), None, DiskFormat.QCOW2)


def test_single_disk_layer_needs_no_role() -> None:
    """The media type is enough."""
    disk = layer(1, f"{DISK}+vhdx")

    found = select_disk("i", manifest(layer(2, OCI_LAYER_GZIP), disk), PATH)

    assert found == DiskArtifact((disk,), None, DiskFormat.VHDX)


def test_path_in_ordinary_layers_is_looked_for_from_the_top() -> None:
    """Upper layers hide lower ones."""
    lower, upper = layer(1, OCI_LAYER_GZIP), layer(2, OCI_LAYER_GZIP)

    found = select_disk("i", manifest(lower, upper), PATH)

    assert found == DiskArtifact((upper, lower), "disk-root-root")


def test_path_in_the_layer_with_the_role_is_looked_for_there_alone() -> None:
    """Artifacts for registries that take tars only."""
    root = layer(2, OCI_LAYER_GZIP, ROLE)

    found = select_disk("i", manifest(layer(1, OCI_LAYER_GZIP), root), PATH)

    assert found == DiskArtifact((root,), "disk-root-root")


@pytest.mark.parametrize(
    "layers", [(), (layer(1, OCI_LAYER_GZIP),), (layer(1, OCI_LAYER_GZIP, ROLE),)]
)
def test_image_without_disk_is_refused(layers: tuple[Descriptor, ...]) -> None:
    """A container image, or nothing at all."""
    with pytest.raises(DiskNotFoundError, match="no disk"):
        select_disk("i", manifest(*layers), {})


@pytest.mark.parametrize("annotations", [{}, ROLE])
def test_image_with_several_disks_is_refused(annotations: dict[str, str]) -> None:
    """Nobody guesses."""
    disks = [layer(number, f"{DISK}+raw", annotations) for number in (1, 2)]

    with pytest.raises(AmbiguousDiskError, match="2 disks"):
        select_disk("i", manifest(*disks), {})


@pytest.mark.parametrize("suffix", ["ova", "vhd", "qcow", "zip"])
def test_format_that_no_volume_has_is_refused(suffix: str) -> None:
    """The documents say so before a byte is copied."""
    with pytest.raises(DiskFormatError, match=suffix):
        select_disk("i", manifest(layer(1, f"{DISK}+{suffix}")), {})
