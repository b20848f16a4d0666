"""Which part of an image is the disk; the documents alone decide.

Source: lf-edge/edge-containers: annotations of layers, and labels of the config for images whose
parts are tars.
"""

__all__ = ["DiskArtifact", "select_disk"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cas.errors import AmbiguousDiskError, DiskNotFoundError
from cas.model.descriptor import Descriptor
from cas.model.disk.format import DiskFormat, claimed_format, is_disk_layer
from cas.model.documents import Manifest
from cas.model.media_types import is_layer

_ROLE = "org.lfedge.eci.role"
_DISK_ROOT = "disk-root"
_PATH_LABEL = "org.lfedge.eci.artifact.root"


@dataclass(frozen=True, slots=True)
class DiskArtifact:
    """Where the disk of an image is.

    Args:
        layers: Blobs to look into, first one first; one alone unless there is a path.
        path: Name of the disk inside a layer that is a tar; None if the blob is the disk.
        claimed: The format that the media type claims; None for none.
    """

    layers: tuple[Descriptor, ...]
    path: str | None = None
    claimed: DiskFormat | None = None


def select_disk(image: str, manifest: Manifest, labels: Mapping[str, str]) -> DiskArtifact:
    """Choose the disk of an image.

    The layer whose role is ``disk-root``; else the path that the config's label names, in the
    topmost layer that has it; else the only layer with the media type of a disk.

    Args:
        image: What messages call it.
        manifest: Its manifest.
        labels: Of its config.

    Raises:
        DiskNotFoundError: It has no disk.
        AmbiguousDiskError: It has several.
        DiskFormatError: The disk claims a format that volumes do not have.
    """
    by_role = [each for each in manifest.layers if each.annotations.get(_ROLE) == _DISK_ROOT]
    disks = by_role or [each for each in manifest.layers if is_disk_layer(each.media_type)]
    path = labels.get(_PATH_LABEL)
    tars = [each for each in by_role or manifest.layers if is_layer(each.media_type)]
    if path and tars and (by_role == tars or not disks):
        return DiskArtifact(tuple(reversed(tars)), path.lstrip("/"))
    if len(disks) > 1:
        raise _ambiguous(image, disks)
    if not disks or is_layer(disks[0].media_type):
        raise DiskNotFoundError(
            f"image {image!r} has no disk: no layer has the role {_DISK_ROOT!r} or the media type "
            f"of a disk, and no label {_PATH_LABEL!r} names one; is it a container image?",
            reference=image,
        )
    return DiskArtifact((disks[0],), None, claimed_format(disks[0].media_type))


def _ambiguous(image: str, disks: Sequence[Descriptor]) -> AmbiguousDiskError:
    return AmbiguousDiskError(
        f"image {image!r} has {len(disks)} disks and does not say which is the root: annotate one "
        f"of them with {_ROLE}={_DISK_ROOT}",
        reference=image,
        disks=", ".join(str(each.digest) for each in disks[:5]),
    )
