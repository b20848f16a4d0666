"""What a datastore is opened with: frozen values that may travel to another process.

They hold texts and no paths, so that a process which may read no file but its own can use them,
and they say everything: no adapter looks into the environment, or at configuration files of the
library below it. Secrets show themselves in the serialised form only.
"""

__all__ = [
    "Credentials",
    "Mirror",
    "Proxies",
    "SourceSettings",
    "TransportSettings",
    "decode_settings",
    "encode_settings",
]

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from cas.datastores.redaction import redact_url
from cas.datastores.secret import NO_SECRET, Secret
from cas.errors import ConfigError

_NO_HEADERS: Mapping[str, Secret] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are to a datastore; what is empty is not used.

    Args:
        username: User; the access key of S3, the account name of Azure.
        password: Password; the secret key of S3, the account key of Azure, the JSON key of a
            service account of Google.
        identity_token: OAuth2 refresh token, as ``docker login`` stores for some registries; the
            session token of S3.
        private_key: SSH private key, as text.
    """

    username: str = ""
    password: Secret = NO_SECRET
    identity_token: Secret = NO_SECRET
    private_key: Secret = NO_SECRET


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Proxies in the sense of ``http_proxy``, ``https_proxy`` and ``no_proxy``.

    Args:
        http: URL of the proxy for http, with user and password if it wants some; empty for none.
        https: The same for https.
        bypass: Comma-separated hosts, domains and networks that are reached without.
    """

    http: Secret = NO_SECRET
    https: Secret = NO_SECRET
    bypass: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How a host is talked to; one value for every call to it, tokens and redirects included.

    Args:
        ca_pem: Certificates of authorities that are trusted beside those of the system.
        client_pem: Certificates by which we are known to this host, each with its key.
        insecure: Certificates are not verified, and credentials may cross plain http.
        headers: Sent to this host and to no other.
        proxies: On the way to it.
        connect_seconds: Longest time until a connection is made.
        idle_seconds: Longest time in which nothing at all may come.
    """

    ca_pem: str = ""
    client_pem: tuple[Secret, ...] = ()
    insecure: bool = False
    headers: Mapping[str, Secret] = field(default_factory=lambda: _NO_HEADERS)
    proxies: Proxies = field(default_factory=Proxies)
    connect_seconds: float = 30.0
    idle_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Another host with a registry's content, asked before the registry itself.

    Args:
        url: ``http`` or ``https`` and host, with the path that comes before ``/v2`` if any.
        resolves: It may say what a tag points to.
        pulls: It may deliver manifests and blobs.
        override_path: ``url`` has the whole path, ``/v2`` included.
        credentials: For this host.
        transport: For this host.

    Source: containerd's hosts.toml.
    """

    url: str
    resolves: bool = True
    pulls: bool = True
    override_path: bool = False
    credentials: Credentials = field(default_factory=Credentials)
    transport: TransportSettings = field(default_factory=TransportSettings)

    def __repr__(self) -> str:
        return f"Mirror({redact_url(self.url)})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SourceSettings:
    """One datastore.

    Args:
        url: Scheme, host and what all its objects have in front of their path:
            ``https://host/base?signature``, ``docker://registry`` (also ``oci://``),
            ``s3://bucket/prefix``, ``azure://account/container``, ``gs://bucket``,
            ``sftp://host:port/base``, ``file:///directory``.
        credentials: Empty for a datastore that is open to everybody.
        transport: For every call.
        mirrors: Of a registry, in the order in which they are asked.
        plain_http: A registry is spoken to without TLS.
        endpoint: URL of a server with S3's, Azure's or Google's protocol that is not theirs.
        region: Of an S3 bucket.
        path_style: Whether the name of an S3 bucket is in the path of its URL; None: with an
            endpoint, or a name with dots.
        host_keys: Lines of ssh's ``known_hosts`` that the SFTP server must match.
    """

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    transport: TransportSettings = field(default_factory=TransportSettings)
    mirrors: tuple[Mirror, ...] = ()
    plain_http: bool = False
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    host_keys: str = ""

    def __repr__(self) -> str:
        return f"SourceSettings({redact_url(self.url)})"


def encode_settings(settings: SourceSettings) -> bytes:
    """Serialise, secrets included: the result is itself a secret."""
    return msgspec.json.encode(settings, enc_hook=dict)  # read-only mappings


def decode_settings(data: bytes) -> SourceSettings:
    """Read what :func:`encode_settings` wrote.

    Raises:
        ConfigError: It is something else. The message does not quote it.
    """
    try:
        return msgspec.json.decode(data, type=SourceSettings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = "settings of a datastore do not parse; they have to be written by encode_settings"
        raise ConfigError(message) from error
