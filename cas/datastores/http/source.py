"""The datastore that is a web server."""

__all__ = ["HEAD_REFUSED", "HTTPSource", "basic_authorization", "open_web"]

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from cas.datastores.http.answer import Answer
from cas.datastores.http.ranges import described, resumption_headers, verified_resumption
from cas.datastores.http.transport import Transport
from cas.datastores.http.urls import join_url, split_user
from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.redaction import redact_url
from cas.datastores.secret import NO_SECRET, Secret
from cas.datastores.settings import Credentials, SourceSettings

_OK = 200
HEAD_REFUSED = frozenset({400, 403, 405, 501})
"""Of whoever knows no HEAD, or whose signed URL is good for GET alone."""
_PAUSE = frozenset({429, 503})
"""Of whoever wants to be asked nothing more for now."""


def basic_authorization(credentials: Credentials) -> Secret:
    """Give the value of an ``Authorization`` header; empty without user and password.

    Source: RFC 7617.
    """
    if not credentials.username and not credentials.password:
        return NO_SECRET
    pair = f"{credentials.username}:{credentials.password.reveal()}"
    return Secret(f"Basic {base64.b64encode(pair.encode()).decode()}")


def open_web(settings: SourceSettings) -> "HTTPSource":
    """Open the objects below one URL of http or https; basic authentication, if any.

    Raises:
        ConfigError: The URL, or a certificate, does not parse.
    """
    base, user, password = split_user(settings.url)
    own = Credentials(username=user, password=Secret(password))
    basic = basic_authorization(own if user else settings.credentials)
    return HTTPSource(
        redact_url(base.partition("?")[0]),
        Transport(settings.transport, base),
        address=lambda _, path: join_url(base, path),
        authorize=lambda: basic,
    )


class HTTPSource:
    """Objects that have URLs.

    Args:
        name: The datastore without secrets.
        transport: For every call.
        address: Gives the URL for a method and the path of an object, signed if need be.
        authorize: Gives the ``Authorization`` header; asked before every request.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        address: Callable[[str, str], str],
        authorize: Callable[[], Secret] = lambda: NO_SECRET,
    ) -> None:
        self._name = name
        self._transport = transport
        self._address = address
        self._authorize = authorize

    @property
    def name(self) -> str:
        """The datastore without secrets."""
        return self._name

    def stat(self, path: str, /) -> RemoteObject:
        """Ask for the headers of an object; by GET, unread, where HEAD gives none.

        Web applications answer a HEAD that they do not know in any way, 404 and 500 included.
        """
        with self._exchange("HEAD", path, {}) as answer:
            if answer.status == _OK or answer.status in _PAUSE:
                return _described(answer)
        with self._exchange("GET", path, {}) as answer:
            return _described(answer)

    @contextmanager
    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> Iterator[Download]:
        """Read an object from ``offset`` on; see :class:`cas.datastores.port.Source`."""
        with self._exchange("GET", path, resumption_headers(offset, validator)) as answer:
            if offset and validator is not None:
                remote = verified_resumption(answer, offset, validator)
            elif answer.status == _OK:
                remote = described(answer)
            else:
                raise answer.refusal()
            yield Download(remote, answer.chunks(), answer.abort)

    @contextmanager
    def _exchange(self, method: str, path: str, headers: dict[str, str]) -> Iterator[Answer]:
        url = self._address(method, path)
        place = path.partition("?")[0]
        with self._transport.exchange(
            url,
            what=f"{self._name}: {place}" if place else self._name,
            method=method,
            headers=headers,
            authorization=self._authorize(),
        ) as answer:
            yield answer

    def close(self) -> None:
        """Give connections back. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _described(answer: Answer) -> RemoteObject:
    if answer.status != _OK:
        raise answer.refusal()
    return described(answer)
