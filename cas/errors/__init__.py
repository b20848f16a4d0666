"""The one tree of errors; lowest layer, imports nothing of ours.

Every failure that leaves a layer of eve-cas is a :class:`CasError`. A class fixes five things
that callers may decide by, so that nobody has to read messages:

* ``reference``: stable kebab-case name, documented in the README's troubleshooting table;
* ``kind``: the family, see the tree;
* ``exit_code``: what the ``cas`` command ends with;
* ``grpc_status``: name of the gRPC status code that a service in front of it answers with;
* ``temporary``: whether the same call may succeed later without anyone changing its input.

The families have a module each, which lists their members::

    CasError
    ├── UsageError                 2   INVALID_ARGUMENT     what the caller typed is wrong
    ├── NotFoundError              3   NOT_FOUND            the object does not exist
    ├── ConflictError              4   FAILED_PRECONDITION  the object's state forbids it
    ├── IntegrityError             5   DATA_LOSS            content is not what it claims to be
    ├── NoSpaceError               6   RESOURCE_EXHAUSTED   a file system is full
    ├── VaultError                 7   FAILED_PRECONDITION  the vault's state forbids writing
    ├── UnavailableError           8   UNAVAILABLE          a peer does not answer (temporary)
    ├── DeniedError                9   PERMISSION_DENIED    a right is lacking
    ├── StorageError               1   INTERNAL             a system call on a file failed
    ├── InternalError              1   INTERNAL             a defect of cas
    └── InterruptedOperationError  130 CANCELLED            stopped by signal or caller (temporary)

A new error goes into its family's module, the lists below, and the README's table.
"""

__all__ = [
    "AgentError",
    "AlreadyExistsError",
    "AmbiguousDiskError",
    "AuthenticationError",
    "BlobNotFoundError",
    "CallerStalledError",
    "CasError",
    "CheckpointError",
    "ConfigError",
    "ConfinementError",
    "ConflictError",
    "ContainerdMissingError",
    "ContentMissingError",
    "CopyMismatchError",
    "CorruptBlobError",
    "CorruptVolumeError",
    "DaemonError",
    "DaemonUnavailableError",
    "DaemonVersionError",
    "DeadlineExceededError",
    "DeniedError",
    "DiffIDMismatchError",
    "DigestMismatchError",
    "DiskFormatError",
    "DiskImageError",
    "DiskNotFoundError",
    "EncryptionUnsupportedError",
    "EventsLostError",
    "ImageNotFoundError",
    "InUseError",
    "IntegrityError",
    "InternalError",
    "InterruptedOperationError",
    "InvalidNameError",
    "KeyMismatchError",
    "LayerError",
    "LayoutError",
    "LeaseNotFoundError",
    "LimitExceededError",
    "LockTimeoutError",
    "MalformedArchiveError",
    "MalformedDocumentError",
    "MountPointError",
    "NoSpaceError",
    "NotFoundError",
    "PcrMismatchError",
    "PlatformNotFoundError",
    "QemuImgError",
    "QemuImgMissingError",
    "RateLimitedError",
    "ResumeUnsupportedError",
    "SealedKeyError",
    "ServiceMismatchError",
    "ServiceOpeningError",
    "ServiceUnavailableError",
    "SignatureError",
    "SizeMismatchError",
    "SnapshotNotFoundError",
    "SocketPathError",
    "SourceChangedError",
    "SourceLibraryMissingError",
    "SourceNotFoundError",
    "SourceProtocolError",
    "SourceStalledError",
    "SourceUnavailableError",
    "StorageError",
    "StoreMetadataLostError",
    "TpmError",
    "TpmUnavailableError",
    "UnavailableError",
    "UntrustedServerError",
    "UsageError",
    "VaultError",
    "VaultLockedError",
    "VaultNotEncryptedError",
    "VolumeConflictError",
    "VolumeHeldError",
    "VolumeNotFoundError",
    "VolumeSizeError",
    "VolumeSnapshotNotFoundError",
]

from cas.errors.base import CasError, InternalError, InterruptedOperationError
from cas.errors.conflict import (
    AlreadyExistsError,
    AmbiguousDiskError,
    ConflictError,
    InUseError,
    LockTimeoutError,
    MountPointError,
    ResumeUnsupportedError,
    ServiceMismatchError,
    SourceChangedError,
    VolumeConflictError,
    VolumeHeldError,
    VolumeSizeError,
)
from cas.errors.denied import (
    AuthenticationError,
    ConfinementError,
    DeniedError,
    LayoutError,
    SignatureError,
)
from cas.errors.integrity import (
    CheckpointError,
    CopyMismatchError,
    CorruptBlobError,
    CorruptVolumeError,
    DiffIDMismatchError,
    DigestMismatchError,
    DiskFormatError,
    DiskImageError,
    IntegrityError,
    LayerError,
    LimitExceededError,
    MalformedArchiveError,
    MalformedDocumentError,
    SizeMismatchError,
    StoreMetadataLostError,
)
from cas.errors.not_found import (
    BlobNotFoundError,
    ContentMissingError,
    DiskNotFoundError,
    ImageNotFoundError,
    LeaseNotFoundError,
    NotFoundError,
    PlatformNotFoundError,
    SnapshotNotFoundError,
    SourceNotFoundError,
    VolumeNotFoundError,
    VolumeSnapshotNotFoundError,
)
from cas.errors.storage import NoSpaceError, StorageError
from cas.errors.unavailable import (
    AgentError,
    CallerStalledError,
    ContainerdMissingError,
    DaemonError,
    DaemonUnavailableError,
    DaemonVersionError,
    DeadlineExceededError,
    EventsLostError,
    QemuImgError,
    QemuImgMissingError,
    RateLimitedError,
    ServiceOpeningError,
    ServiceUnavailableError,
    SourceLibraryMissingError,
    SourceProtocolError,
    SourceStalledError,
    SourceUnavailableError,
    TpmError,
    TpmUnavailableError,
    UnavailableError,
    UntrustedServerError,
)
from cas.errors.usage import ConfigError, InvalidNameError, SocketPathError, UsageError
from cas.errors.vault import (
    EncryptionUnsupportedError,
    KeyMismatchError,
    PcrMismatchError,
    SealedKeyError,
    VaultError,
    VaultLockedError,
    VaultNotEncryptedError,
)
