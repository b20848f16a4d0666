"""Who we are to one host of a registry: basic authentication, or tokens from who gives them.

A token is used until the host refuses it; then one new one is asked for. Credentials are sent
where the host itself points to and never where a redirect does.
"""

__all__ = ["Authorization"]

import threading
from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from cas.datastores.http.source import basic_authorization
from cas.datastores.http.transport import Transport
from cas.datastores.http.urls import is_loopback, origin_of, refuse_ambiguous
from cas.datastores.redaction import redact_url
from cas.datastores.registry.challenge import Challenge, parse_challenges
from cas.datastores.secret import NO_SECRET, Secret
from cas.datastores.settings import Credentials
from cas.errors import AuthenticationError, SourceProtocolError

_MAX_TOKEN_BYTES = 256 * 1024
_OK = 200


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Authorization:
    """Gives the ``Authorization`` header for one host; may be used by several threads at once.

    Args:
        transport: Of the host; the one who gives tokens is talked to by the same.
        credentials: Empty for anonymous access.
        secure: The host is talked to over TLS that is verified.
    """

    def __init__(self, transport: Transport, credentials: Credentials, *, secure: bool) -> None:
        self._transport = transport
        self._credentials = credentials
        self._secure = secure
        self._guard = threading.Lock()
        self._basic = NO_SECRET
        self._bearer: Challenge | None = None
        self._tokens: dict[str, Secret] = {}

    def header(self, scope: str) -> Secret:
        """Give what is known to work for a scope; empty until a host has asked for something.

        Raises:
            AuthenticationError: No token is given for it.
            SourceUnavailableError: Who gives tokens does not answer.
        """
        with self._guard:
            if self._bearer is not None and scope not in self._tokens:
                self._tokens[scope] = self._token(self._bearer, scope)
            return self._tokens.get(scope, self._basic)

    def learn(self, header_values: Iterable[str], scope: str, refused: Secret) -> bool:
        """Find another header after the host refused one.

        Args:
            header_values: What it sent as ``WWW-Authenticate``.
            scope: What was asked for.
            refused: What it refused.

        Returns:
            Whether there is something new to try.
        """
        challenges = {each.scheme: each for each in parse_challenges(header_values)}
        with self._guard:
            known = self._tokens.get(scope, self._basic)
            if known and known != refused:
                return True  # another thread was faster
            if "bearer" in challenges:
                self._bearer = challenges["bearer"]
                self._tokens[scope] = self._token(self._bearer, scope)
                return self._tokens[scope] != refused
            if "basic" in challenges:
                self._basic = basic_authorization(self._credentials)
                return bool(self._basic) and self._basic != refused
            return False

    def _token(self, challenge: Challenge, scope: str) -> Secret:
        realm = challenge.parameters.get("realm", "")
        self._require_safe(realm)
        wanted = {"service": challenge.parameters.get("service", ""), "scope": scope}
        if self._credentials.identity_token:
            return self._exchange_identity(realm, wanted)
        query = urlencode({name: value for name, value in wanted.items() if value})
        return self._ask(f"{realm}{'&' if '?' in realm else '?'}{query}", "GET", None)

    def _exchange_identity(self, realm: str, wanted: dict[str, str]) -> Secret:
        form = {
            **wanted,
            "grant_type": "refresh_token",
            "refresh_token": self._credentials.identity_token.reveal(),
            "client_id": "eve-cas",
        }
        return self._ask(realm, "POST", Secret(urlencode(form)))

    def _ask(self, url: str, method: str, body: Secret | None) -> Secret:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        basic = NO_SECRET if body else basic_authorization(self._credentials)
        what = f"token from {redact_url(url.partition('?')[0])}"
        with self._transport.exchange(
            url, what=what, method=method, headers=headers, authorization=basic, body=body
        ) as answer:
            if answer.status != _OK:
                raise answer.refusal()
            data = answer.body(_MAX_TOKEN_BYTES)
        try:
            given = msgspec.json.decode(data, type=_TokenAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SourceProtocolError(f"{what}: the answer is not a token") from error
        token = given.token or given.access_token
        if not token or not token.isascii() or not token.isprintable():
            raise AuthenticationError(f"{what}: there is no token in the answer")
        return Secret(f"Bearer {token}")

    def _require_safe(self, realm: str) -> None:
        try:
            refuse_ambiguous(realm)
            scheme, host, _ = origin_of(realm)
        except ValueError:
            scheme, host = "", ""
        if scheme == "https" or (scheme == "http" and (not self._secure or is_loopback(host))):
            return
        raise SourceProtocolError(
            f"the registry sends us for a token to {redact_url(realm)!r}, which is no URL of https"
        )
