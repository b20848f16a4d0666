"""Requests: redirects, credentials that stay where they belong, errors of ours.

One transport is one set of TLS, proxy and time settings for every call to a datastore, tokens and
redirects included.
"""

__all__ = ["Transport"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from cas import __version__
from cas.datastores.http.answer import Answer
from cas.datastores.http.failures import translated
from cas.datastores.http.pools import Pools
from cas.datastores.http.urls import is_loopback, origin_of, refuse_ambiguous
from cas.datastores.redaction import redact_url
from cas.datastores.secret import NO_SECRET, Secret
from cas.datastores.settings import TransportSettings
from cas.errors import ConfigError, DeniedError, SourceProtocolError

_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COMMON = {"User-Agent": f"eve-cas/{__version__}", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class _Request:
    url: str
    what: str
    method: str
    headers: Mapping[str, str]
    authorization: Secret
    body: bytes | Secret | None


class Transport:
    """Talks HTTP by one set of settings; may be used by several threads at once.

    Args:
        settings: For every call.
        home: URL of the host that the settings' headers are for.
    """

    def __init__(self, settings: TransportSettings, home: str) -> None:
        self._settings = settings
        self._home = _origin(home)
        self._pools = Pools(settings)

    @contextmanager
    def exchange(
        self,
        url: str,
        *,
        what: str = "",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        authorization: Secret = NO_SECRET,
        body: bytes | Secret | None = None,
    ) -> Iterator[Answer]:
        """Send a request and give the answer, whatever its status, after redirects.

        The authorization goes to the origin of ``url`` only, the settings' headers to their own;
        both are taken for credentials.

        Args:
            url: http or https, without user.
            what: How messages call it; the redacted URL if empty.
            method: ``GET``, ``HEAD`` or ``POST``; a POST is not redirected.
            headers: Sent to whoever answers in the end.
            authorization: Value of the ``Authorization`` header.
            body: Of a POST; a secret one is credentials, as the authorization is.

        Raises:
            SourceUnavailableError: It cannot be reached.
            SourceStalledError: It does not answer.
            SourceProtocolError: Its answer makes no sense, redirects for ever or to plain http.
            UntrustedServerError: Its certificate is not trusted.
            DeniedError: Credentials would cross plain http.
            ConfigError: ``url``, or that of the proxy, is none.
        """
        what = what or redact_url(url)
        if authorization or isinstance(body, Secret):
            self._refuse_plain_credentials(url)
        answer = self._follow(_Request(url, what, method, headers or {}, authorization, body))
        try:
            yield answer
        finally:
            answer.close()

    def _follow(self, request: _Request) -> Answer:
        first = _origin(request.url)
        url = request.url
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {**_COMMON, **request.headers}
            if origin_of(url) == self._home:
                own = self._settings.headers
                if own:
                    self._refuse_plain_credentials(url)
                headers.update({name: value.reveal() for name, value in own.items()})
            if request.authorization and origin_of(url) == first:
                headers["Authorization"] = request.authorization.reveal()
            answer = self._send(url, request, headers)
            if answer.status not in _REDIRECTS or request.method == "POST":
                return answer
            answer.close()
            url = self._redirected(url, answer)
        raise SourceProtocolError(
            f"{request.what}: more than {_MAX_REDIRECTS} redirects one after another"
        )

    def _send(self, url: str, request: _Request, headers: dict[str, str]) -> Answer:
        body = request.body
        with translated(request.what):
            response = self._pools.for_url(url).urlopen(
                request.method,
                url,
                body=body.reveal().encode() if isinstance(body, Secret) else body,
                headers=headers,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        return Answer(response, url, request.what)

    def _refuse_plain_credentials(self, url: str) -> None:
        scheme, host, _ = _origin(url)
        if scheme == "https" or self._settings.insecure or is_loopback(host):
            return
        raise DeniedError(
            f"credentials or headers for {redact_url(url)} would cross the network in clear; use "
            "https, or allow it by the datastore's insecure setting"
        )

    def _redirected(self, url: str, answer: Answer) -> str:
        target = answer.headers.get("Location", "")
        if not target:
            raise answer.refusal()
        try:
            refuse_ambiguous(target)
            following = urljoin(url, target)
            scheme, _, _ = origin_of(following)
        except ValueError as error:
            raise SourceProtocolError(
                f"{answer.what}: redirected to {redact_url(target)!r}, which is no plain URL of "
                "http or https"
            ) from error
        downgraded = origin_of(url)[0] == "https" and scheme == "http"
        if downgraded and not self._settings.insecure:
            raise SourceProtocolError(
                f"{answer.what}: redirected from https to plain http ({redact_url(following)})"
            )
        return following

    def close(self) -> None:
        """Close what is idle. Idempotent."""
        self._pools.close()


def _origin(url: str) -> tuple[str, str, int]:
    try:
        return origin_of(url)
    except ValueError as error:
        message = f"{redact_url(url)!r} is no URL of http or https"
        raise ConfigError(message) from error
