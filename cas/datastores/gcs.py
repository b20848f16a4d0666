"""Google's storage by its JSON interface; a generation of an object is its validator.

The transfers are web downloads, so that what holds for other downloads holds here.

Source: Cloud Storage JSON API, objects: get.
"""

__all__ = ["GCSSource"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self
from urllib.parse import quote, urlsplit

import msgspec

from cas.datastores.google_account import ServiceAccount
from cas.datastores.http.answer import Answer
from cas.datastores.http.ranges import resumption_headers, verified_resumption
from cas.datastores.http.transport import Transport
from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.settings import SourceSettings
from cas.errors import ConfigError, SourceChangedError, SourceProtocolError

_ENDPOINT = "https://storage.googleapis.com"
_GENERATION = "generation"
_MAX_METADATA_BYTES = 1024 * 1024
_OK = 200


class _Metadata(msgspec.Struct):
    size: str
    generation: str
    content_type: str = msgspec.field(default="", name="contentType")


class GCSSource:
    """A bucket, or what has a common prefix in it.

    Args:
        settings: URL ``gs://bucket/prefix``; the password is the JSON key of a service account.

    Raises:
        ConfigError: The URL has no bucket, or the key does not parse.
    """

    def __init__(self, settings: SourceSettings) -> None:
        parts = urlsplit(settings.url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        if not self._bucket:
            raise ConfigError("the URL of a Google datastore has no bucket; write gs://bucket")
        self._endpoint = (settings.endpoint or _ENDPOINT).rstrip("/")
        self._transport = Transport(settings.transport, self._endpoint)
        self._account = ServiceAccount(settings.credentials.password, self._transport, self.name)

    @property
    def name(self) -> str:
        """The bucket as a URL."""
        return f"gs://{self._bucket}/{self._prefix}".rstrip("/")

    def stat(self, path: str, /) -> RemoteObject:
        """Ask about an object."""
        with self._exchange(self._address("storage", path), path) as answer:
            if answer.status != _OK:
                raise answer.refusal()
            data = answer.body(_MAX_METADATA_BYTES)
        try:
            told = msgspec.json.decode(data, type=_Metadata)
            size, generation = int(told.size), str(int(told.generation))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise SourceProtocolError(f"{answer.what}: the server describes it wrongly") from error
        return RemoteObject(size, Validator(_GENERATION, generation), told.content_type.lower())

    @contextmanager
    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> Iterator[Download]:
        """Read an object from ``offset`` on; see :class:`cas.datastores.port.Source`."""
        remote = self.stat(path)
        current = remote.validator
        if current is None or (offset and current != validator):
            raise SourceChangedError(f"{self.name}: {path} was replaced while it was read")
        url = f"{self._address('download/storage', path)}?alt=media&generation={current.value}"
        with self._exchange(url, path, resumption_headers(offset, current)) as answer:
            if offset:
                verified_resumption(answer, offset, current)
            elif answer.status != _OK:
                raise answer.refusal()
            yield Download(remote, answer.chunks(), answer.abort)

    def _address(self, service: str, path: str) -> str:
        name = "/".join(part for part in (self._prefix, path.lstrip("/")) if part)
        return f"{self._endpoint}/{service}/v1/b/{self._bucket}/o/{quote(name, safe='')}"

    @contextmanager
    def _exchange(
        self, url: str, path: str, headers: dict[str, str] | None = None
    ) -> Iterator[Answer]:
        with self._transport.exchange(
            url, what=f"{self.name}: {path}", headers=headers, authorization=self._account.header()
        ) as answer:
            yield answer

    def close(self) -> None:
        """Give connections back. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
