"""Azure's blob storage: signed URLs, and web downloads of them.

Azure's library signs with an account key. A URL that has a signature already is an ordinary one
of https. The library is not asked to transfer, so that what holds for other downloads holds here.
"""

__all__ = ["open_azure"]

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from cas.datastores.http.source import HTTPSource
from cas.datastores.http.transport import Transport
from cas.datastores.settings import SourceSettings
from cas.errors import ConfigError, SourceProtocolError

_SIGNATURE_TIME = timedelta(hours=1)
"""A download that takes longer is not cut: a signature counts when a request begins."""


def open_azure(settings: SourceSettings) -> HTTPSource:
    """Open a container, or what has a common prefix in it.

    Args:
        settings: URL ``azure://account/container/prefix``; the account key is the password. The
            endpoint of a server that is not Azure has the account in its path.

    Raises:
        ConfigError: The URL has no account or no container.
    """
    parts = urlsplit(settings.url)
    container, _, prefix = parts.path.strip("/").partition("/")
    if not parts.netloc or not container:
        message = "the URL of an Azure datastore lacks something; write azure://account/container"
        raise ConfigError(message)
    base = settings.endpoint.rstrip("/") or f"https://{parts.netloc}.blob.core.windows.net"
    transport = Transport(settings.transport, base)
    sign = _signer(settings, parts.netloc, container, _ServerTime(transport, base))

    def address(_: str, path: str) -> str:
        name = "/".join(part for part in (prefix, path.lstrip("/")) if part)
        signature = sign(name)
        url = f"{base}/{container}/{quote(name, safe='/~')}"
        return f"{url}?{signature}" if signature else url

    name = f"azure://{parts.netloc}/{container}/{prefix}".rstrip("/")
    return HTTPSource(name, transport, address=address)


def _signer(
    settings: SourceSettings, account: str, container: str, clock: Callable[[], datetime]
) -> Callable[[str], str]:
    key = settings.credentials.password.reveal()
    if not key:
        return lambda _: ""

    def sign(name: str) -> str:
        try:
            return generate_blob_sas(
                settings.credentials.username or account,
                container,
                name,
                account_key=key,
                permission=BlobSasPermissions(read=True),
                expiry=clock() + _SIGNATURE_TIME,
            )
        except ValueError as error:  # the key is no base64
            raise ConfigError(f"the account key of azure://{account} does not parse") from error

    return sign


class _ServerTime:
    """The clock of the server that judges how old a signature is; ours may be wrong at boot."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self._url = url
        self._known: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        if self._known is None:
            self._known = self._ask(), time.monotonic()
        moment, since = self._known
        return moment + timedelta(seconds=time.monotonic() - since)

    def _ask(self) -> datetime:
        with self._transport.exchange(self._url, method="HEAD") as answer:
            try:
                return parsedate_to_datetime(answer.headers.get("Date", ""))
            except (TypeError, ValueError) as error:
                raise SourceProtocolError(f"{answer.what}: the server tells no time") from error
