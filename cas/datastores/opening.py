"""From settings to a datastore; each kind is loaded when the first of it is opened.

All of it is loaded then: whoever opens a datastore may give up the right to read anything else
before it is used.
"""

__all__ = ["open_registry", "open_source"]

import encodings.idna  # noqa: F401 - Python looks it up by name when a host is connected to
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cas.datastores.port import Registry, Source
from cas.datastores.redaction import redact_url
from cas.datastores.retry import Pace, RetryPolicy
from cas.datastores.settings import SourceSettings
from cas.errors import ConfigError, SourceLibraryMissingError

_KINDS = "docker, http, https, s3, azure, gs, sftp and file"


def open_source(settings: SourceSettings, *, retry: RetryPolicy | None = None) -> Source:
    """Open a datastore; nothing is asked of it yet.

    Args:
        settings: Everything about it.
        retry: Of what a registry is asked; whoever reads from a datastore tries again by himself.

    Raises:
        ConfigError: The settings do not make sense together, or the URL has an unknown scheme.
        SourceLibraryMissingError: Its kind needs an extra of the package.
    """
    match _scheme(settings.url):
        case "http" | "https":
            from cas.datastores.http.source import open_web

            return open_web(settings)
        case "docker" | "oci":
            return open_registry(settings, retry=retry)
        case "file":
            from cas.datastores.file import FileSource

            return FileSource(settings)
        case "s3":
            with _extra("s3"):
                from cas.datastores.s3 import open_s3
            return open_s3(settings)
        case "azure":
            with _extra("azure"):
                from cas.datastores.azure import open_azure
            return open_azure(settings)
        case "gs":
            with _extra("gcs"):
                from cas.datastores.gcs import GCSSource
            return GCSSource(settings)
        case "sftp":
            with _extra("sftp"):
                from cas.datastores.sftp import SFTPSource
            return SFTPSource(settings)
        case scheme:
            raise ConfigError(
                f"the datastore {redact_url(settings.url)!r} is of the unknown kind {scheme!r}; "
                f"there are {_KINDS}"
            )


def open_registry(
    settings: SourceSettings, *, retry: RetryPolicy | None = None, pace: Pace | None = None
) -> Registry:
    """Open a registry, of which more can be asked than of other datastores.

    Args:
        settings: URL ``docker://<registry>`` or ``oci://<registry>``.
        retry: Attempts of every question.
        pace: Time.

    Raises:
        ConfigError: The settings do not make sense together.
    """
    from cas.datastores.registry.registry import OCIRegistry

    return OCIRegistry(settings, retry=retry, pace=pace)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra of the package is missing if what the block imports is not installed."""
    try:
        yield
    except ImportError as error:
        raise SourceLibraryMissingError(
            f"this kind of datastore needs a library that is not installed ({error.name}); run "
            f"`pip install 'eve-cas[{name}]'`",
            extra=name,
        ) from error


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        message = "the URL of a datastore does not parse; write scheme://host[:port]/path"
        raise ConfigError(message) from error
