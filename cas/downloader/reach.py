"""What the downloader reads outside its own directory: names of hosts, authorities, libraries."""

__all__ = ["readable_paths"]

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SYSTEM = (
    # resolving names
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/etc/services", "/etc/protocols", "/run/systemd/resolve", "/run/resolvconf"),
    # authorities that sign certificates, and how to use them
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates"),
    "/usr/local/share/ca-certificates",
    # what libraries load when they first need it
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/dev/urandom", "/dev/null"),
)
_FILE = "file"


def readable_paths(url: str) -> tuple[Path, ...]:
    """List them for a datastore.

    Args:
        url: Of the datastore; the directory of a local one is added.
    """
    parts = urlsplit(url)
    local = (unquote(parts.path),) if parts.scheme == _FILE else ()
    return tuple(map(Path, (*_SYSTEM, sys.prefix, sys.base_prefix, *local)))
