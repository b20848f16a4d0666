"""States that forbid an operation: exit status 4, FAILED_PRECONDITION."""

__all__ = [
    "AlreadyExistsError",
    "AmbiguousDiskError",
    "ConflictError",
    "InUseError",
    "LockTimeoutError",
    "MountPointError",
    "ResumeUnsupportedError",
    "ServiceMismatchError",
    "SourceChangedError",
    "VolumeConflictError",
    "VolumeHeldError",
    "VolumeSizeError",
]

from cas.errors.base import CasError


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
