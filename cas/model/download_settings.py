"""What an installation chooses about downloads."""

__all__ = ["DEFAULT_HOSTS_DIRECTORY", "DownloadSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cas.model.datastore_settings import DatastoreSettings

DEFAULT_HOSTS_DIRECTORY = Path("/etc/containerd/certs.d")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """How content is downloaded, and what is asked of it.

    Args:
        parallel: Blobs of an image downloaded at once.
        digest_attempts: Downloads of a blob that comes with a wrong digest or size, the first one
            included.
        attempts: Attempts in a row that bring nothing, before a download is given up.
        sync_bytes: Bytes between two syncs. A kill or power cut costs at most twice as many, and a
            chunk.
        connect_seconds: Longest time until a connection is made.
        idle_seconds: Longest time in which nothing at all may come.
        stall_seconds: A source that sends next to nothing for so long is given up as stalled.
        hosts_directory: Mirrors, certificates and headers per registry, as containerd's
            ``certs.d``.
        docker_config: docker's ``config.json`` with credentials; None means none.
        ca_file: Authorities trusted beside those of the system; None means none.
        signature_policy: Which content must be signed; None asks for nothing.
        http_proxy: URL of a proxy for http; may hold a password.
        https_proxy: The same for https.
        no_proxy: Hosts that are reached without.
        datastores: How files of a datastore are fetched, by a prefix of its URL.
    """

    parallel: int = 4
    digest_attempts: int = 5
    attempts: int = 7
    sync_bytes: int = 32 * _MIB
    connect_seconds: float = 30.0
    idle_seconds: float = 60.0
    stall_seconds: float = 120.0
    hosts_directory: Path = DEFAULT_HOSTS_DIRECTORY
    docker_config: Path | None = None
    ca_file: Path | None = None
    signature_policy: Path | None = None
    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    datastores: Mapping[str, DatastoreSettings] = field(default_factory=dict)
