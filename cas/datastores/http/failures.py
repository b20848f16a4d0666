"""From statuses and exceptions of HTTP to our errors; the only place that does it.

Decides by status and by class, never by text. What a server wrote is quoted, shortened and
redacted, for people to read.
"""

__all__ = ["refusal", "retry_after_seconds", "translated"]

import http.client
import math
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from urllib3 import exceptions

from cas.datastores.redaction import redact
from cas.errors import (
    AuthenticationError,
    CasError,
    RateLimitedError,
    SourceChangedError,
    SourceNotFoundError,
    SourceProtocolError,
    SourceStalledError,
    SourceUnavailableError,
    UntrustedServerError,
)

_LONGEST_QUOTE = 300
_STATUSES: Mapping[int, tuple[type[CasError], str]] = {
    401: (AuthenticationError, "wants credentials, or refuses these; check user and password"),
    403: (AuthenticationError, "does not allow it with these credentials"),
    404: (SourceNotFoundError, "has no such object; check the name"),
    407: (AuthenticationError, "cannot be reached: the proxy wants credentials"),
    408: (SourceUnavailableError, "ran out of patience"),
    410: (SourceNotFoundError, "has removed the object"),
    412: (SourceChangedError, "has another object there than when the transfer began"),
    421: (SourceUnavailableError, "was asked over a connection meant for another host"),
    425: (SourceUnavailableError, "does not answer yet"),
    429: (RateLimitedError, "asks for a pause"),
    501: (SourceProtocolError, "cannot do that"),
    505: (SourceProtocolError, "does not speak this version of HTTP"),
    511: (SourceUnavailableError, "cannot be reached: the network wants a login (captive portal)"),
}
_SERVER_FAILED = 500


def refusal(status: int, headers: Mapping[str, str], what: str, quote: str) -> CasError:
    """Make the error for an answer that is no success.

    Args:
        status: Of the answer.
        headers: Of the answer; ``Retry-After`` is honoured.
        what: The datastore and the object, without secrets.
        quote: What the server wrote, as it came.
    """
    if status in _STATUSES:
        kind, meaning = _STATUSES[status]
    elif status >= _SERVER_FAILED:
        kind, meaning = SourceUnavailableError, "failed"
    else:
        kind, meaning = SourceProtocolError, "gave an answer that makes no sense here"
    details: dict[str, object] = {"status": status}
    pause = retry_after_seconds(headers)
    if pause is not None:
        details["retry_after_seconds"] = pause
        meaning = f"{meaning} and names {pause:.0f} seconds"
    said = redact(quote)[:_LONGEST_QUOTE].strip()
    answer = f"HTTP status {status}, {said!r}" if said else f"HTTP status {status}"
    return kind(f"{what}: the server {meaning} ({answer})", **details)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``; None without one, or with one that does not parse.

    A date is taken relative to the server's own clock, since ours may be wrong.

    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        sent = parsedate_to_datetime(headers.get("Date", ""))
        seconds = (moment - sent).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn exceptions of urllib3, http.client and the socket into errors of ours.

    Args:
        what: The datastore and the object, without secrets.
    """
    try:
        yield
    except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        raise _failure(error, what) from error


def _failure(error: BaseException, what: str) -> CasError:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return UntrustedServerError(
            f"{what}: the server's certificate is not trusted ({_text(causes[-1])}); give the CA "
            "that signed it, and check the clock"
        )
    if any(isinstance(cause, exceptions.ReadTimeoutError | TimeoutError) for cause in causes):
        return SourceStalledError(f"{what}: the server has sent nothing of use for too long")
    if any(_is_nonsense(cause) for cause in causes):
        return SourceProtocolError(
            f"{what}: what came is not HTTP as it should be ({_text(causes[-1])}); something in "
            "between may answer instead of the server"
        )
    if any(isinstance(cause, exceptions.ProxyError) for cause in causes):
        return SourceUnavailableError(f"{what}: the proxy cannot be used ({_text(causes[-1])})")
    return SourceUnavailableError(
        f"{what}: the connection failed or broke off ({_text(causes[-1])}); check the address, the "
        "network and the proxy"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those it was made from, outermost first; urllib3 keeps them in args."""
    for _ in range(8):
        yield error
        inner = [arg for arg in error.args if isinstance(arg, BaseException)]
        following = error.__cause__ or (inner[0] if inner else error.__context__)
        if following is None:
            return
        error = following


def _is_nonsense(error: BaseException) -> bool:
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return False  # subclasses that mean a broken connection
    return isinstance(
        error,
        http.client.HTTPException
        | exceptions.LocationValueError
        | exceptions.InvalidChunkLength
        | exceptions.InvalidHeader
        | UnicodeError,
    )


def _text(error: BaseException) -> str:
    return redact(str(error) or type(error).__name__)[:_LONGEST_QUOTE]
