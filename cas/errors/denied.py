"""Rights that the process, a datastore's caller or the content lacks: exit status 9."""

__all__ = [
    "AuthenticationError",
    "ConfinementError",
    "DeniedError",
    "LayoutError",
    "SignatureError",
]

from cas.errors.base import CasError


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
