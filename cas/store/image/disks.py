"""The disk in an image, or a bare blob that is one."""

__all__ = ["ResolvedDisk", "as_digest", "bare_disk", "image_disk"]

from collections.abc import Mapping
from dataclasses import dataclass

from cas.errors import DiskNotFoundError, InvalidNameError
from cas.model.descriptor import Platform
from cas.model.digest import Digest
from cas.model.disk.artifact import DiskArtifact, select_disk
from cas.model.disk.record import DiskOrigin
from cas.model.disk.wrapping import wrap_disk
from cas.model.documents import Manifest
from cas.model.labels import MEDIA_TYPE
from cas.model.media_types import is_config, is_index, is_manifest
from cas.model.records import BlobInfo, ImageRecord
from cas.store.image.resolution import ImageResolution


@dataclass(frozen=True, slots=True)
class ResolvedDisk:
    """A disk that a volume can be made from; whether its blob is present was not looked at.

    Args:
        image: Canonical reference; the digest for a bare blob.
        manifest_digest: Of the chosen manifest, or of the one that wraps the bare blob.
        artifact: Where the disk is.
    """

    image: str
    manifest_digest: Digest
    artifact: DiskArtifact

    def origin(self, blob: Digest) -> DiskOrigin:
        """Say where a volume comes from, ``blob`` being where the disk was found."""
        return DiskOrigin(self.image, self.manifest_digest, blob)


def as_digest(text: str) -> Digest | None:
    """Give the digest that a text is; None for the reference of an image."""
    try:
        return Digest.parse(text)
    except InvalidNameError:
        return None


def bare_disk(blob: BlobInfo) -> ResolvedDisk:
    """Take a blob for a disk image.

    Raises:
        DiskNotFoundError: It is a manifest, index or config, as far as the store knows.
    """
    media_type = blob.labels.get(MEDIA_TYPE, "")
    if is_manifest(media_type) or is_index(media_type) or is_config(media_type):
        raise DiskNotFoundError(
            f"blob {blob.digest} is a document ({media_type}) and no disk; name the image instead",
            digest=blob.digest,
        )
    wrapped = wrap_disk(blob.digest, blob.size)
    return ResolvedDisk(str(blob.digest), wrapped.target.digest, DiskArtifact((wrapped.layer,)))


def image_disk(
    resolution: ImageResolution, record: ImageRecord, platform: Platform
) -> ResolvedDisk:
    """Find the disk of an image; see :meth:`ImageCatalogue.resolve_disk` for the errors."""
    descriptor, manifest = resolution.choose(record.name, record.target, platform)
    artifact = select_disk(record.name, manifest, _labels(resolution, manifest))
    return ResolvedDisk(record.name, descriptor.digest, artifact)


def _labels(resolution: ImageResolution, manifest: Manifest) -> Mapping[str, str]:
    if not is_config(manifest.config.media_type):
        return {}  # of an artifact, whose layers must say what they are
    return resolution.config(manifest)[1].labels
