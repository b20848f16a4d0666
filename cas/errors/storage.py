"""What file systems answer: no room, exit status 6, or a failed call, exit status 1."""

__all__ = [
    "NoSpaceError",
    "StorageError",
]

from cas.errors.base import CasError


class NoSpaceError(CasError):
    """The file system has, or would have, too little room; asking again does not help."""

    reference = "no-space"
    kind = "no-space"
    exit_code = 6
    grpc_status = "RESOURCE_EXHAUSTED"


class StorageError(CasError):
    """A system call on a file failed; what it was about to publish is not visible."""

    reference = "storage"
    kind = "storage"
    grpc_status = "INTERNAL"
