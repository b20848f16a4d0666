"""From a reference or URL, and what the device knows of it, to the settings of a datastore.

Reads files that only root may, docker's credentials among them, so that the downloader need not.
"""

__all__ = ["file_uuid", "registry_settings", "split_url", "url_settings"]

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from cas.datastores.redaction import redact_url
from cas.datastores.registry.docker_config import stored_credentials
from cas.datastores.registry.hosts_toml import with_hosts
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, Proxies, SourceSettings, TransportSettings
from cas.errors import ConfigError, InvalidNameError
from cas.fsops.reading import regular_file
from cas.model.download_settings import DownloadSettings
from cas.model.transfer_name import image_uuid
from cas.pull.configured import configured_settings

_MAX_CA_BYTES = 4 * 1024 * 1024


def registry_settings(download: DownloadSettings, registry: str) -> SourceSettings:
    """Say how a registry is talked to.

    Mirrors, certificates and headers come from ``hosts_directory``, credentials from docker's
    configuration. A registry on this machine is talked to without TLS unless ``hosts_directory``
    says otherwise, as docker does.

    Args:
        download: Where to look.
        registry: Host, with port if any, as in references.

    Raises:
        ConfigError: A file is wrong or cannot be read.
    """

    def credentials(host: str) -> Credentials:
        if download.docker_config is None:
            return Credentials()
        return stored_credentials(host, download.docker_config)

    settings = SourceSettings(
        url=f"docker://{registry}",
        credentials=credentials(registry),
        transport=_transport(download),
        plain_http=_is_this_machine(registry),
    )
    return with_hosts(settings, registry, download.hosts_directory, credentials)


def url_settings(
    download: DownloadSettings, url: str, credentials: Credentials | None = None
) -> tuple[SourceSettings, str]:
    """Say how the datastore of a single file is talked to, and what it calls the file.

    Args:
        download: Proxies, authorities and patience; datastores with settings of their own.
        url: Of the file.
        credentials: None for those of the configuration, if it has some.

    Raises:
        InvalidNameError: The URL names no file.
        ConfigError: A file is wrong or cannot be read.
    """
    base, path = split_url(url)
    settings = SourceSettings(
        url=base, credentials=credentials or Credentials(), transport=_transport(download)
    )
    return configured_settings(settings, url, download.datastores), path


def file_uuid(url: str) -> UUID:
    """Give the UUID of a file that nobody has given one: whatever user, password and query are.

    It is in the names of files that others may see, and must not help to guess those.
    """
    return image_uuid(redact_url(url.partition("?")[0]))


def split_url(url: str) -> tuple[str, str]:
    """Split the URL of a file into that of its datastore and the name in it.

    A query stays with the datastore, to which a signature in it belongs.

    Raises:
        InvalidNameError: It is no URL, or names no file.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError as error:
        raise InvalidNameError(f"{redact_url(url)!r} is no URL") from error
    directory, _, name = parts.path.rpartition("/")
    if not parts.scheme or not name or "\\" in parts.netloc:
        raise InvalidNameError(
            f"{redact_url(url)!r} is no URL of a file; write scheme://host/path/name"
        )
    if parts.scheme == "file" and not directory:
        raise InvalidNameError(
            f"{redact_url(url)!r} lies in the root directory, all of which the downloader would "
            "have to be able to read; move the file into a directory of its own"
        )
    return urlunsplit((parts.scheme, parts.netloc, directory, parts.query, "")), name


def _transport(download: DownloadSettings) -> TransportSettings:
    return TransportSettings(
        ca_pem="" if download.ca_file is None else _read(download.ca_file),
        proxies=Proxies(
            http=Secret(download.http_proxy),
            https=Secret(download.https_proxy),
            bypass=download.no_proxy,
        ),
        connect_seconds=download.connect_seconds,
        idle_seconds=download.idle_seconds,
    )


def _read(path: Path) -> str:
    try:
        with regular_file(path) as stream:
            raw = stream.read(_MAX_CA_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", path=path) from error
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} holds no certificates in PEM", path=path) from error


def _is_this_machine(registry: str) -> bool:
    host = urlsplit(f"//{registry}").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
