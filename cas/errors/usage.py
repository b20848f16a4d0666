"""What the caller asked for is malformed: exit status 2, INVALID_ARGUMENT."""

__all__ = [
    "ConfigError",
    "InvalidNameError",
    "SocketPathError",
    "UsageError",
]

from cas.errors.base import CasError


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
