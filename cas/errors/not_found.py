"""What does not exist: exit status 3, NOT_FOUND."""

__all__ = [
    "BlobNotFoundError",
    "ContentMissingError",
    "DiskNotFoundError",
    "ImageNotFoundError",
    "LeaseNotFoundError",
    "NotFoundError",
    "PlatformNotFoundError",
    "SnapshotNotFoundError",
    "SourceNotFoundError",
    "VolumeNotFoundError",
    "VolumeSnapshotNotFoundError",
]

from cas.errors.base import CasError


class NotFoundError(CasError):
    """The object does not exist (and only that: a failed look-up is never this)."""

    reference = "not-found"
    kind = "not-found"
    exit_code = 3
    grpc_status = "NOT_FOUND"


class BlobNotFoundError(NotFoundError):
    """No blob of this digest is in the store."""

    reference = "blob-not-found"


class ImageNotFoundError(NotFoundError):
    """No image has this reference."""

    reference = "image-not-found"


class PlatformNotFoundError(NotFoundError):
    """The image holds no manifest for the wanted platform."""

    reference = "platform-not-found"


class ContentMissingError(NotFoundError):
    """A blob that a document refers to is neither in the input nor in the store."""

    reference = "content-missing"


class SnapshotNotFoundError(NotFoundError):
    """No snapshot has this key or name."""

    reference = "snapshot-not-found"


class VolumeNotFoundError(NotFoundError):
    """No volume has this name."""

    reference = "volume-not-found"


class VolumeSnapshotNotFoundError(NotFoundError):
    """A volume has no snapshot of that name."""

    reference = "volume-snapshot-not-found"


class LeaseNotFoundError(NotFoundError):
    """The lease is gone; what it protected may be gone too, so the operation aborts."""

    reference = "lease-lost"


class DiskNotFoundError(NotFoundError):
    """The image holds no disk that a volume could be made from."""

    reference = "disk-not-found"


class SourceNotFoundError(NotFoundError):
    """The file or directory to read, or the object at its source, does not exist."""

    reference = "source-not-found"
