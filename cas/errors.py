"""The one tree of errors; lowest layer, imports nothing of ours.

Every failure that leaves a layer of eve-cas is a :class:`CasError`. A class fixes four things
that callers may decide by, so that nobody has to read messages:

* ``reference``: stable kebab-case name, documented in the README's troubleshooting table;
* ``kind``: the family, see the tree;
* ``exit_code``: what the ``cas`` command ends with;
* ``grpc_status``: name of the gRPC status code that a service in front of it answers with;
* ``temporary``: whether the same call may succeed later without anyone changing its input.

::

    CasError
    ├── UsageError               2   INVALID_ARGUMENT     what the caller typed is wrong
    │   ├── InvalidNameError          volume name, reference, digest, label, platform
    │   ├── SocketPathError           longer than a unix socket path may be
    │   └── ConfigError               configuration file or value
    ├── NotFoundError            3   NOT_FOUND
    │   ├── BlobNotFoundError
    │   ├── ImageNotFoundError
    │   ├── PlatformNotFoundError     image has nothing for this platform
    │   ├── ContentMissingError       a blob that something refers to is absent
    │   ├── SnapshotNotFoundError
    │   ├── VolumeNotFoundError
    │   ├── VolumeSnapshotNotFoundError  the volume has no snapshot of that name
    │   ├── LeaseNotFoundError        the lease vanished under its holder
    │   ├── DiskNotFoundError         the image holds no disk
    │   └── SourceNotFoundError       file to read, or object at its source, does not exist
    ├── ConflictError            4   FAILED_PRECONDITION
    │   ├── AlreadyExistsError
    │   ├── VolumeConflictError       the name holds another image
    │   ├── VolumeHeldError           what an upgrade found of the volume is not converted yet
    │   ├── VolumeSizeError           the disk is larger than asked for, or cannot grow
    │   ├── AmbiguousDiskError        the image holds several disks
    │   ├── InUseError                object has users
    │   ├── ServiceMismatchError      the service works on another store
    │   ├── MountPointError           mount point occupied by something else
    │   ├── LockTimeoutError          someone else works on the object (temporary)
    │   ├── SourceChangedError        the object at its source is not the one begun (temporary)
    │   └── ResumeUnsupportedError    the source cannot go on in the middle (temporary)
    ├── IntegrityError           5   DATA_LOSS
    │   ├── DigestMismatchError
    │   ├── SizeMismatchError
    │   ├── DiffIDMismatchError
    │   ├── MalformedDocumentError    manifest, index, config
    │   ├── MalformedArchiveError
    │   ├── LimitExceededError        input larger or deeper than a stated limit
    │   ├── LayerError                a layer cannot be unpacked
    │   ├── DiskFormatError           a disk image of another format than claimed or usable
    │   ├── DiskImageError            a disk image is malformed, or refers to other files
    │   ├── CorruptBlobError          stored content differs from its digest
    │   ├── CorruptVolumeError        volume directory is not what it must be
    │   ├── CheckpointError           no copy of the device's configuration can be read
    │   ├── CopyMismatchError         a copy is not what it was made from
    │   └── StoreMetadataLostError    containerd's database was emptied
    ├── NoSpaceError             6   RESOURCE_EXHAUSTED
    ├── VaultError               7   FAILED_PRECONDITION
    │   ├── VaultLockedError
    │   ├── VaultNotEncryptedError
    │   ├── EncryptionUnsupportedError  the file system cannot encrypt
    │   ├── PcrMismatchError          the TPM keeps the key: the machine's state changed
    │   ├── KeyMismatchError          what was given is not the vault's key, or does not open it
    │   └── SealedKeyError            a sealed key is damaged or another keeper's
    ├── UnavailableError         8   UNAVAILABLE (temporary)
    │   ├── ServiceUnavailableError   cas's own service cannot be reached or is full
    │   ├── DaemonUnavailableError    containerd cannot be reached
    │   ├── DaemonVersionError        containerd too old or lacking a service (not temporary)
    │   ├── DaemonError               containerd answered something we have no word for
    │   ├── TpmUnavailableError       there is no TPM, or it is busy
    │   ├── TpmError                  it answered with a failure (not temporary)
    │   ├── DeadlineExceededError
    │   ├── EventsLostError           a listener was too slow
    │   ├── ContainerdMissingError    no containerd binary (not temporary)
    │   ├── QemuImgMissingError       no qemu-img binary (not temporary)
    │   ├── QemuImgError              it failed (not temporary)
    │   ├── SourceUnavailableError    a datastore does not answer, or breaks off
    │   ├── SourceStalledError        a datastore sends nothing, or next to nothing
    │   ├── RateLimitedError          a datastore asks for a pause
    │   ├── SourceProtocolError       a datastore's answer makes no sense (not temporary)
    │   ├── UntrustedServerError      its certificate or host key is not trusted (not temporary)
    │   ├── SourceLibraryMissingError an extra of the package is not installed (not temporary)
    │   └── AgentError                downloader or verifier died or talked nonsense
    ├── DeniedError              9   PERMISSION_DENIED
    │   ├── LayoutError               a directory of the layout is not what it must be
    │   ├── ConfinementError          an agent cannot be confined as it must be
    │   ├── SignatureError            content is not signed as the policy wants it
    │   └── AuthenticationError       a datastore refuses the credentials, or asks for some
    ├── StorageError             1   INTERNAL             a system call on a file failed
    ├── InternalError            1   INTERNAL             a defect of cas
    └── InterruptedOperationError 130 CANCELLED           stopped by signal or caller
"""

__all__ = [
    "AgentError",
    "AlreadyExistsError",
    "AmbiguousDiskError",
    "AuthenticationError",
    "BlobNotFoundError",
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

from typing import ClassVar


class CasError(Exception):
    """Root of all errors that eve-cas raises on purpose.

    Args:
        message: What failed, on which object, expected and actual, and what to do; lower case,
            no full stop.
        **details: Values behind the message (digest, expected, actual, path, ...), rendered with
            ``str`` in the JSON form of the error.
    """

    reference: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    grpc_status: ClassVar[str] = "UNKNOWN"
    temporary: ClassVar[bool] = False
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_document(self) -> dict[str, object]:
        """Give the stable JSON form: reference, kind, message, details."""
        return {
            "reference": self.reference,
            "kind": self.kind,
            "message": self.message,
            "details": {key: str(value) for key, value in self.details.items()},
        }


class UsageError(CasError):
    """What the caller asked for is malformed; nothing was touched."""

    reference = "usage"
    kind = "usage"
    exit_code = 2
    grpc_status = "INVALID_ARGUMENT"


class InvalidNameError(UsageError):
    """A digest, reference, volume name, label, size or platform does not parse."""

    reference = "invalid-name"


class SocketPathError(UsageError):
    """A unix socket path is longer than the 107 bytes that the kernel takes."""

    reference = "socket-path-too-long"


class ConfigError(UsageError):
    """The configuration file cannot be read or holds a wrong value."""

    reference = "invalid-config"


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


class ConflictError(CasError):
    """The object is in a state that forbids the operation."""

    reference = "conflict"
    kind = "conflict"
    exit_code = 4
    grpc_status = "FAILED_PRECONDITION"


class AlreadyExistsError(ConflictError):
    """An object of this name exists and the call does not replace."""

    reference = "already-exists"


class VolumeConflictError(ConflictError):
    """The volume name is taken by another image; a new generation is needed."""

    reference = "volume-conflict"


class VolumeHeldError(ConflictError):
    """The volume's data lies where older software kept it, and an upgrade could not convert it."""

    reference = "volume-held"


class VolumeSizeError(ConflictError):
    """The disk is larger than what was asked for, or its format cannot grow."""

    reference = "volume-size"


class AmbiguousDiskError(ConflictError):
    """The image holds several disks, and nothing says which is meant."""

    reference = "disk-ambiguous"


class InUseError(ConflictError):
    """Something still uses the object."""

    reference = "in-use"


class ServiceMismatchError(ConflictError):
    """The service that answers works on another store than the one that was meant."""

    reference = "service-mismatch"


class MountPointError(ConflictError):
    """The mount point holds something that is not ours to hide."""

    reference = "mount-point-occupied"


class LockTimeoutError(ConflictError):
    """Another caller held the lock until the deadline."""

    reference = "locked"
    temporary = True


class SourceChangedError(ConflictError):
    """The object at its source is another one than when the transfer began."""

    reference = "source-changed"
    temporary = True


class ResumeUnsupportedError(ConflictError):
    """The source cannot, or cannot provably, go on in the middle of the object."""

    reference = "resume-unsupported"
    temporary = True


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


class NoSpaceError(CasError):
    """The file system has, or would have, too little room; asking again does not help."""

    reference = "no-space"
    kind = "no-space"
    exit_code = 6
    grpc_status = "RESOURCE_EXHAUSTED"


class VaultError(CasError):
    """The vault's state forbids writing."""

    reference = "vault"
    kind = "vault"
    exit_code = 7
    grpc_status = "FAILED_PRECONDITION"


class VaultLockedError(VaultError):
    """The vault is encrypted and its key is not loaded."""

    reference = "vault-locked"


class VaultNotEncryptedError(VaultError):
    """Encryption is required and the vault is plain."""

    reference = "vault-not-encrypted"


class EncryptionUnsupportedError(VaultError):
    """The file system, or the kernel, cannot encrypt directories."""

    reference = "encryption-unsupported"


class PcrMismatchError(VaultError):
    """The TPM keeps the key back: the machine was not started as when it was sealed."""

    reference = "pcr-mismatch"


class KeyMismatchError(VaultError):
    """A key, key file or passphrase that was given is not the vault's."""

    reference = "key-mismatch"


class SealedKeyError(VaultError):
    """A sealed key is damaged, or was sealed by another keeper."""

    reference = "sealed-key-unusable"


class UnavailableError(CasError):
    """A peer that the operation needs does not answer."""

    reference = "unavailable"
    kind = "unavailable"
    exit_code = 8
    grpc_status = "UNAVAILABLE"
    temporary = True


class ServiceUnavailableError(UnavailableError):
    """The cas service does not answer on its socket, or takes no more calls right now."""

    reference = "service-unavailable"


class DaemonUnavailableError(UnavailableError):
    """containerd does not answer on its socket."""

    reference = "containerd-unavailable"


class DaemonVersionError(UnavailableError):
    """containerd is too old, or runs without a service that the store needs."""

    reference = "containerd-unsuitable"
    temporary = False


class DaemonError(UnavailableError):
    """containerd failed in a way that has no name here; its own words are in the message."""

    reference = "containerd-failed"


class TpmUnavailableError(UnavailableError):
    """There is no TPM, or somebody else keeps it busy."""

    reference = "tpm-unavailable"


class TpmError(UnavailableError):
    """The TPM answered with a failure, or cannot do what is needed."""

    reference = "tpm-failed"
    temporary = False


class DeadlineExceededError(UnavailableError):
    """The answer did not come in time; whether the call took effect is unknown."""

    reference = "deadline-exceeded"
    grpc_status = "DEADLINE_EXCEEDED"


class EventsLostError(UnavailableError):
    """A listener took events too slowly, and some are lost to it."""

    reference = "events-lost"


class ContainerdMissingError(UnavailableError):
    """There is no containerd binary to run."""

    reference = "containerd-missing"
    temporary = False


class QemuImgMissingError(UnavailableError):
    """There is no qemu-img binary to run."""

    reference = "qemu-img-missing"
    temporary = False


class QemuImgError(UnavailableError):
    """qemu-img failed or was stopped at one of its limits; its own words are in the message."""

    reference = "qemu-img-failed"
    temporary = False


class SourceUnavailableError(UnavailableError):
    """A datastore cannot be reached, answers with a failure of its own, or breaks off."""

    reference = "source-unavailable"


class SourceStalledError(UnavailableError):
    """A datastore has sent nothing, or next to nothing, for longer than the limit."""

    reference = "source-stalled"


class RateLimitedError(UnavailableError):
    """A datastore asks for a pause; ``retry_after_seconds`` in the details says how long a one."""

    reference = "rate-limited"
    grpc_status = "RESOURCE_EXHAUSTED"


class SourceProtocolError(UnavailableError):
    """A datastore's answer is not what its protocol allows; asking again does not help."""

    reference = "source-protocol"
    temporary = False


class UntrustedServerError(UnavailableError):
    """A datastore's certificate is of no authority we trust, or of another host; or its SSH key."""

    reference = "server-untrusted"
    temporary = False


class SourceLibraryMissingError(UnavailableError):
    """The datastore's kind needs an extra of the package that is not installed."""

    reference = "source-library-missing"
    temporary = False


class AgentError(UnavailableError):
    """An agent's process ended before its work, or said what no agent says."""

    reference = "agent-failed"


class DeniedError(CasError):
    """The process lacks a right."""

    reference = "denied"
    kind = "denied"
    exit_code = 9
    grpc_status = "PERMISSION_DENIED"


class LayoutError(DeniedError):
    """A directory of the layout is missing, a symlink, or has the wrong owner or mode."""

    reference = "layout"


class AuthenticationError(DeniedError):
    """A datastore refuses the credentials it was given, or asks for some where none are known."""

    reference = "authentication-refused"
    grpc_status = "UNAUTHENTICATED"


class ConfinementError(DeniedError):
    """The kernel or the machine lacks a part of an agent's confinement that is required."""

    reference = "confinement"


class SignatureError(DeniedError):
    """The signature policy asks for a signature that the content has not, or refuses it."""

    reference = "signature"


class StorageError(CasError):
    """A system call on a file failed; what it was about to publish is not visible."""

    reference = "storage"
    kind = "storage"
    grpc_status = "INTERNAL"


class InternalError(CasError):
    """A defect of cas; whether the operation took effect is unknown."""

    reference = "internal-error"
    grpc_status = "INTERNAL"


class InterruptedOperationError(CasError):
    """The caller or a signal stopped the operation; it was undone."""

    reference = "interrupted"
    kind = "interrupted"
    exit_code = 130
    grpc_status = "CANCELLED"
    temporary = True
