"""Tokens for a service account of Google; the one module that knows google-auth."""

__all__ = ["ServiceAccount"]

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from google.auth import exceptions
from google.oauth2 import service_account

from cas.datastores.http.transport import Transport
from cas.datastores.secret import NO_SECRET, Secret
from cas.errors import (
    AuthenticationError,
    ConfigError,
    SourceProtocolError,
    SourceUnavailableError,
)

_MAX_TOKEN_BYTES = 256 * 1024
_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_only"]
_NONSENSE = (AttributeError, OverflowError, RecursionError, TypeError, ValueError)
"""What the library raises for an answer that it did not expect."""


@dataclass(frozen=True, slots=True)
class _Response:
    """An answer in the library's terms, see :class:`google.auth.transport.Response`."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class ServiceAccount:
    """Gives the ``Authorization`` header of a service account; may be used by several threads.

    Args:
        key: Its JSON key; empty for anonymous access.
        transport: Talks to who gives tokens.
        what: The datastore, for messages.

    Raises:
        ConfigError: The key does not parse.
    """

    def __init__(self, key: Secret, transport: Transport, what: str) -> None:
        self._transport = transport
        self._what = what
        self._guard = threading.Lock()
        self._credentials: service_account.Credentials | None = None
        if key:
            self._credentials = _parse(key)

    def header(self) -> Secret:
        """Give a header that is valid now; empty for anonymous access.

        Raises:
            AuthenticationError: No token is given for this key.
            SourceUnavailableError: Who gives tokens does not answer.
            SourceProtocolError: The answer is no token.
            LimitExceededError: It is longer than one can be.
        """
        if self._credentials is None:
            return NO_SECRET
        with self._guard:
            if not self._credentials.valid:
                self._refresh(self._credentials)
            return Secret(f"Bearer {self._credentials.token}")

    def _refresh(self, credentials: service_account.Credentials) -> None:
        try:
            credentials.refresh(self._ask)  # type: ignore[no-untyped-call] # as it is
        except _NONSENSE as error:
            message = f"{self._what}: who gives tokens answers with something else"
            raise SourceProtocolError(message) from error
        except exceptions.GoogleAuthError as error:
            if isinstance(error, exceptions.TransportError) or error.retryable:
                message = f"{self._what}: who gives tokens does not answer"
                raise SourceUnavailableError(message) from error
            message = f"{self._what}: the service account gets no token; check its key"
            raise AuthenticationError(message) from error

    def _ask(
        self, url: str, method: str, body: bytes, headers: Mapping[str, str], **_: object
    ) -> _Response:
        """Send a request of the library, which itself would read an answer without end."""
        with self._transport.exchange(
            url,
            what=f"{self._what}: token",
            method=method,
            headers=headers,
            body=Secret(body.decode()),
        ) as answer:
            return _Response(answer.status, answer.headers, answer.body(_MAX_TOKEN_BYTES))


def _parse(key: Secret) -> service_account.Credentials:
    try:
        info = msgspec.json.decode(key.reveal(), type=dict[str, str])
        return service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call,no-any-return] # as it is
            info, scopes=_SCOPES
        )
    except (
        KeyError,
        ValueError,
        msgspec.DecodeError,
        exceptions.GoogleAuthError,
    ) as error:
        message = "the key of the service account does not parse; its JSON form is needed"
        raise ConfigError(message) from error
