"""Content that is not what it claims to be: exit status 5, DATA_LOSS."""

__all__ = [
    "CheckpointError",
    "CopyMismatchError",
    "CorruptBlobError",
    "CorruptVolumeError",
    "DiffIDMismatchError",
    "DigestMismatchError",
    "DiskFormatError",
    "DiskImageError",
    "IntegrityError",
    "LayerError",
    "LimitExceededError",
    "MalformedArchiveError",
    "MalformedDocumentError",
    "SizeMismatchError",
    "StoreMetadataLostError",
]

from cas.errors.base import CasError


class IntegrityError(CasError):
    """Content is not what it claims to be; nothing of it became visible."""

    reference = "integrity"
    kind = "integrity"
    exit_code = 5
    grpc_status = "DATA_LOSS"


class DigestMismatchError(IntegrityError):
    """The bytes hash to another digest than claimed."""

    reference = "digest-mismatch"


class SizeMismatchError(IntegrityError):
    """There are more or fewer bytes than claimed."""

    reference = "size-mismatch"


class DiffIDMismatchError(IntegrityError):
    """An unpacked layer hashes to another diff ID than the image config claims."""

    reference = "diff-id-mismatch"


class MalformedDocumentError(IntegrityError):
    """A manifest, index, config or label is not valid."""

    reference = "malformed-document"


class MalformedArchiveError(IntegrityError):
    """The input is not a complete OCI layout or docker archive."""

    reference = "malformed-archive"


class LimitExceededError(IntegrityError):
    """The input is larger, deeper or more numerous than a stated limit."""

    reference = "limit-exceeded"


class LayerError(IntegrityError):
    """containerd refused to unpack a layer."""

    reference = "layer-unusable"


class DiskFormatError(IntegrityError):
    """A disk image is of another format than it is said to be, or of one that cannot be used."""

    reference = "disk-format"


class DiskImageError(IntegrityError):
    """A disk image is malformed or cut off, or refers to something outside itself."""

    reference = "disk-unusable"


class CorruptBlobError(IntegrityError):
    """A stored blob's bytes differ from its digest or are gone."""

    reference = "blob-corrupt"


class CorruptVolumeError(IntegrityError):
    """A volume lacks its record, its snapshot or its mount point."""

    reference = "volume-corrupt"


class CheckpointError(IntegrityError):
    """No copy of the device's configuration is there, or can be read."""

    reference = "checkpoint-unreadable"


class CopyMismatchError(IntegrityError):
    """A copy read back differs from what it was made from; it was removed."""

    reference = "copy-mismatch"


class StoreMetadataLostError(IntegrityError):
    """Blobs are on disk but containerd's database knows nothing of this store."""

    reference = "store-metadata-lost"
