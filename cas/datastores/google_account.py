"""Tokens for a service account of Google; the one module that knows google-auth."""

__all__ = ["ServiceAccount"]

import threading

import msgspec
from google.auth import exceptions
from google.auth.transport.urllib3 import Request
from google.oauth2 import service_account

from cas.datastores.http.transport import Transport
from cas.datastores.secret import NO_SECRET, Secret
from cas.errors import AuthenticationError, ConfigError, SourceUnavailableError

_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_only"]


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
        self._token_url = ""
        if key:
            self._credentials, self._token_url = _parse(key)

    def header(self) -> Secret:
        """Give a header that is valid now; empty for anonymous access.

        Raises:
            AuthenticationError: No token is given for this key.
            SourceUnavailableError: Who gives tokens does not answer.
        """
        if self._credentials is None:
            return NO_SECRET
        with self._guard:
            if not self._credentials.valid:
                self._refresh(self._credentials)
            return Secret(f"Bearer {self._credentials.token}")

    def _refresh(self, credentials: service_account.Credentials) -> None:
        connections = self._transport.connections(self._token_url)
        try:
            credentials.refresh(Request(connections))  # type: ignore[no-untyped-call] # as it is
        except exceptions.GoogleAuthError as error:
            if isinstance(error, exceptions.TransportError) or error.retryable:
                message = f"{self._what}: who gives tokens does not answer"
                raise SourceUnavailableError(message) from error
            message = f"{self._what}: the service account gets no token; check its key"
            raise AuthenticationError(message) from error


def _parse(key: Secret) -> tuple[service_account.Credentials, str]:
    try:
        info = msgspec.json.decode(key.reveal(), type=dict[str, str])
        credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call] # as it is
            info, scopes=_SCOPES
        )
        return credentials, info["token_uri"]
    except (
        KeyError,
        ValueError,
        msgspec.DecodeError,
        exceptions.GoogleAuthError,
    ) as error:
        message = "the key of the service account does not parse; its JSON form is needed"
        raise ConfigError(message) from error
