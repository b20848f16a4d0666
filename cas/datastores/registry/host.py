"""One host of a registry: the registry itself, or a mirror."""

__all__ = ["Host", "HostSettings"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cas.datastores.http.answer import Answer
from cas.datastores.http.ranges import described, resumption_headers, verified_resumption
from cas.datastores.http.source import HEAD_REFUSED
from cas.datastores.http.transport import Transport
from cas.datastores.http.urls import origin_of, split_user
from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.redaction import redact_url
from cas.datastores.registry.authorization import Authorization
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, TransportSettings
from cas.model.digest import Digest

_OK = 200
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What a host is talked to with.

    Args:
        url: Everything before the name of a repository, ``/v2`` included.
        namespace: Registry that a mirror stands for; empty for the registry itself.
        resolves: It may say what a tag points to.
        pulls: It may deliver manifests and blobs.
        credentials: For it.
        transport: For it.
    """

    url: str
    namespace: str
    resolves: bool
    pulls: bool
    credentials: Credentials
    transport: TransportSettings


class Host:
    """Asks one host; may be used by several threads at once."""

    def __init__(self, settings: HostSettings) -> None:
        url, user, password = split_user(settings.url)
        own = Credentials(username=user, password=Secret(password))
        self.settings = settings
        self.name = redact_url(url)
        self.failures = 0
        """How often it failed in the middle of a blob."""
        self.delivered: set[Digest] = set()
        """Blobs that it delivered to their end; who asks for one again was not content with it."""
        self._url = url.rstrip("/")
        self._query = f"ns={settings.namespace}" if settings.namespace else ""
        self._transport = Transport(settings.transport, url)
        secure = url.startswith("https://") and not settings.transport.insecure
        self._authorization = Authorization(
            self._transport, own if user else settings.credentials, secure=secure
        )

    @contextmanager
    def exchange(
        self,
        method: str,
        repository: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        query: str = "",
    ) -> Iterator[Answer]:
        """Ask about something in a repository, with authentication; gives any answer but 401.

        Args:
            method: ``GET`` or ``HEAD``.
            repository: Its name.
            path: Behind it, such as ``manifests/latest``.
            headers: More of them.
            query: As it is sent.

        Raises:
            AuthenticationError: It refuses us.
            CasError: As :meth:`cas.datastores.http.transport.Transport.exchange`.
        """
        scope = f"repository:{repository}:pull"
        query = "&".join(part for part in (self._query, query) if part)
        url = f"{self._url}/{repository}/{path}{'?' if query else ''}{query}"
        again = True
        while True:
            authorization = self._authorization.header(scope)
            with self._transport.exchange(
                url,
                what=f"{self.name}: {repository}/{path}",
                method=method,
                headers=headers,
                authorization=authorization,
            ) as answer:
                if answer.status != _UNAUTHORIZED:
                    yield answer
                    return
                asks = answer.header_values("WWW-Authenticate") if self._is_own(answer) else []
                if not again or not self._authorization.learn(asks, scope, authorization):
                    raise answer.refusal()
                again = False

    def _is_own(self, answer: Answer) -> bool:
        """Whether it is the host that answers, and not one that it sent us to."""
        return origin_of(answer.url) == origin_of(self._url)

    def stat_blob(self, repository: str, digest: Digest) -> RemoteObject:
        """Ask for size and type of a blob; by GET, unread, where HEAD is refused."""
        with self.exchange("HEAD", repository, f"blobs/{digest}") as answer:
            if answer.status == _OK:
                return described(answer)
            if answer.status not in HEAD_REFUSED:
                raise answer.refusal()
        with self.open_blob(repository, digest, 0, None) as download:
            return download.remote

    @contextmanager
    def open_blob(
        self, repository: str, digest: Digest, offset: int, validator: Validator | None
    ) -> Iterator[Download]:
        """Read a blob from ``offset`` on, following the host to where it keeps its blobs."""
        headers = resumption_headers(offset, validator)
        with self.exchange("GET", repository, f"blobs/{digest}", headers) as answer:
            if offset and validator is not None:
                remote = verified_resumption(answer, offset, validator)
            elif answer.status == _OK:
                remote = described(answer)
            else:
                raise answer.refusal()
            yield Download(remote, answer.chunks(), answer.abort)

    def close(self) -> None:
        """Give connections back. Idempotent."""
        self._transport.close()
