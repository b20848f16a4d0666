"""From gRPC status codes to the error tree: the only place that reads a status.

Every code has a counterpart; a call names a nearer class where it knows one (a missing blob
rather than a missing something). Decisions go by code. There are two exceptions, because
containerd gives no other sign:

* a full file system comes as UNKNOWN with the text of ENOSPC;
* a ref that another stream writes comes as UNAVAILABLE, the code of a lost connection, too.
"""

__all__ = ["TRANSLATIONS", "RefLockedError", "translated"]

import errno
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from cas.containerd.patience import is_stopped
from cas.errors import (
    AlreadyExistsError,
    BlobNotFoundError,
    CasError,
    ConflictError,
    CorruptBlobError,
    DaemonError,
    DaemonUnavailableError,
    DaemonVersionError,
    DeadlineExceededError,
    DeniedError,
    InterruptedOperationError,
    LimitExceededError,
    LockTimeoutError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)

_logger = logging.getLogger(__name__)

TRANSLATIONS: Mapping[grpc.StatusCode, type[CasError]] = {
    # OK and CANCELLED never come as the answer to a call that nobody cancelled, unless the
    # server goes away in the middle of it.
    grpc.StatusCode.OK: DaemonError,
    grpc.StatusCode.CANCELLED: DaemonUnavailableError,
    grpc.StatusCode.UNKNOWN: DaemonError,
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    # A message larger than either side takes; a full disk is UNKNOWN.
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.ABORTED: DaemonError,
    grpc.StatusCode.OUT_OF_RANGE: UsageError,
    grpc.StatusCode.UNIMPLEMENTED: DaemonVersionError,
    grpc.StatusCode.INTERNAL: DaemonError,
    grpc.StatusCode.UNAVAILABLE: DaemonUnavailableError,
    grpc.StatusCode.DATA_LOSS: CorruptBlobError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
}

_NO_SPACE = os.strerror(errno.ENOSPC).lower()
_REF_LOCKED = re.compile(r"ref \S+ locked\b")


class RefLockedError(LockTimeoutError):
    """Another stream has the ref open; leaves this package as ``LockTimeoutError``."""


@contextmanager
def translated(
    action: str,
    *,
    nearer: Mapping[grpc.StatusCode, type[CasError]] | None = None,
    **details: object,
) -> Iterator[None]:
    """Turn every gRPC error inside into a :class:`CasError`.

    Args:
        action: What is being done, on which object, such as ``read blob sha256:...``.
        nearer: Classes that go before :data:`TRANSLATIONS` for this call.
        details: Of the error, such as the digest.

    Raises:
        CasError: The class that the status code stands for, with containerd's words.
    """
    began = time.perf_counter()
    try:
        yield
    except grpc.RpcError as error:
        raise _counterpart(error, action, nearer or {}, details) from error
    except grpc.FutureCancelledError as error:
        raise InterruptedOperationError(
            f"cannot {action}: the operation was stopped by its caller before containerd answered; "
            "what that was asked for may happen yet"
        ) from error
    finally:
        _logger.debug("containerd call action=%r seconds=%.4f", action, time.perf_counter() - began)


def _counterpart(
    error: grpc.RpcError,
    action: str,
    nearer: Mapping[grpc.StatusCode, type[CasError]],
    details: Mapping[str, object],
) -> CasError:
    if not isinstance(error, grpc.Call):
        return DaemonError(f"cannot {action}: {error}")
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNKNOWN and _NO_SPACE in text.lower():
        kind: type[CasError] = NoSpaceError
    elif code is grpc.StatusCode.UNAVAILABLE and _REF_LOCKED.match(text):
        kind = RefLockedError
    elif code is grpc.StatusCode.CANCELLED and is_stopped():
        kind = InterruptedOperationError
    else:
        kind = nearer.get(code, TRANSLATIONS.get(code, DaemonError))
    words = f"cannot {action}: {_advice(kind)}{text or code.name}"
    return kind(words, **{**details, "code": code.name})


def _advice(kind: type[CasError]) -> str:
    if issubclass(kind, DaemonUnavailableError):
        return "containerd does not answer; see whether it runs: "
    if issubclass(kind, NoSpaceError):
        return "the store's file system is full; remove something or run `cas prune`: "
    if issubclass(kind, BlobNotFoundError):
        return "it is not in the store; 'cas blob ls' lists what is: "
    return ""
