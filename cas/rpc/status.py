"""Errors on the wire: our tree as gRPC status with details, and back.

A status carries a ``google.rpc.ErrorInfo``: reason is the reference, domain is
:data:`ERROR_DOMAIN`, metadata are the error's details with ``kind`` and ``temporary``. Nobody has
to read a message's text. A status without it was made by gRPC itself, on either side, or ends a
call whose caller does not read what comes before the details; its code says enough.
"""

__all__ = [
    "ERROR_DOMAIN",
    "bare_status",
    "error_from_message",
    "error_from_rpc",
    "error_message",
    "error_status",
    "is_told",
]

from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cas._gen.cas.v1 import types_pb2
from cas.errors import (
    AlreadyExistsError,
    CallerStalledError,
    CasError,
    ConflictError,
    DeadlineExceededError,
    DeniedError,
    IntegrityError,
    InternalError,
    LimitExceededError,
    NotFoundError,
    ServiceUnavailableError,
    UsageError,
)
from cas.model.foreign_errors import rebuild_error
from cas.rpc.messages import text

ERROR_DOMAIN = "cas.lfedge.org"

_MESSAGE_BYTES = 1024
_DETAIL_BYTES = 512
_DETAILS_BYTES = 2048
"""Clients refuse trailers of more than 8 KiB, of which encoding takes a part."""

_KIND = "kind"
_TEMPORARY = "temporary"

_BARE: Mapping[grpc.StatusCode, type[CasError]] = {
    # A service that ends, or locks its vault: whoever breaks a call off reads no status.
    grpc.StatusCode.CANCELLED: ServiceUnavailableError,
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.OUT_OF_RANGE: UsageError,
    # The service is older than the client.
    grpc.StatusCode.UNIMPLEMENTED: UsageError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
    # A message larger than either side takes.
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    # gRPC never makes it, and the service for this alone.
    grpc.StatusCode.ABORTED: CallerStalledError,
    grpc.StatusCode.DATA_LOSS: IntegrityError,
}
"""What a status without details stands for; the others are :class:`InternalError`."""

_BARE_WORDS: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.CANCELLED: "the service broke it off: ",
    grpc.StatusCode.UNAVAILABLE: "the service does not answer: ",
}


def error_status(error: CasError) -> grpc.Status:
    """Give the status that a call ends with; long texts are cut so that every client takes it."""
    info = ErrorInfo(
        reason=error.reference,
        domain=ERROR_DOMAIN,
        metadata={
            **_short_details(error),
            _KIND: error.kind,
            _TEMPORARY: str(error.temporary).lower(),
        },
    )
    packed = Any()
    packed.Pack(info)
    code, message = bare_status(error)
    return rpc_status.to_status(Status(code=code, message=message.decode(), details=[packed]))


def bare_status(error: CasError) -> tuple[int, bytes]:
    """Give code and message, in UTF-8, of the status that a call ends with."""
    code: int = grpc.StatusCode[error.grpc_status].value[0]
    return code, _shortened(text(error.message), _MESSAGE_BYTES).encode()


def error_from_rpc(error: grpc.RpcError, action: str) -> CasError:
    """Rebuild the error that a call ended with: same class, same message, same details.

    Args:
        error: What a stub raised.
        action: What was being done, for an error that gRPC made itself, such as ``list blobs``.
    """
    if not isinstance(error, grpc.Call):
        return InternalError(f"cannot {action}: {error}")
    info = _error_info(error)
    message = error.details() or ""
    if info is not None:
        details = dict(info.metadata)
        kind = details.pop(_KIND, "")
        details.pop(_TEMPORARY, None)
        return rebuild_error(info.reason, kind, message, details)
    found = _BARE.get(error.code(), InternalError)
    words = _BARE_WORDS.get(error.code(), "")
    return found(f"cannot {action}: {words}{message or error.code().name}", code=error.code().name)


def is_told(error: grpc.RpcError) -> bool:
    """Whether a service of ours ended the call so, and not gRPC."""
    return isinstance(error, grpc.Call) and _error_info(error) is not None


def error_message(error: CasError) -> types_pb2.Error:
    """Write an error that concerns one of several objects."""
    return types_pb2.Error(
        reference=error.reference,
        kind=error.kind,
        message=text(error.message),
        details={key: text(value) for key, value in error.details.items()},
        temporary=error.temporary,
    )


def error_from_message(message: types_pb2.Error) -> CasError:
    """Read an error that concerns one of several objects."""
    return rebuild_error(message.reference, message.kind, message.message, message.details)


def _error_info(call: grpc.Call) -> ErrorInfo | None:
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # somebody between us rewrote the status
        return None
    for packed in status.details if status is not None else ():
        info = ErrorInfo()
        if packed.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info
    return None


def _short_details(error: CasError) -> dict[str, str]:
    details: dict[str, str] = {}
    left = _DETAILS_BYTES
    for key, value in error.details.items():
        shown = _shortened(text(value), _DETAIL_BYTES)
        left -= len(key) + len(shown.encode())
        if left >= 0:
            details[key] = shown
    return details


def _shortened(value: str, limit: int) -> str:
    raw = value.encode()
    return value if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore") + "…"
