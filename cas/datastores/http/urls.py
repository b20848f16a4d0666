"""URLs of objects: put together and compared as text, never cleaned.

Signatures live in query strings and cover paths byte for byte, so nothing is decoded, sorted or
normalised here.
"""

__all__ = ["is_loopback", "join_url", "origin_of", "refuse_ambiguous", "split_user"]

import ipaddress
from urllib.parse import unquote, urlsplit

from urllib3.util import parse_url

from cas.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def join_url(base: str, path: str) -> str:
    """Put the path of an object behind the URL of its datastore.

    A query of the datastore (a signature for all its objects) and one of the path (a signature
    for this object) are both kept, the datastore's first. An empty path means the URL itself.
    """
    base, _, _ = base.partition("#")
    base, _, common = base.partition("?")
    path, _, own = path.partition("?")
    url = f"{base.rstrip('/')}/{path.lstrip('/')}" if path else base
    query = "&".join(part for part in (common, own) if part)
    return f"{url}?{query}" if query else url


def split_user(url: str) -> tuple[str, str, str]:
    """Take user and password out of a URL.

    Returns:
        The URL without them, user, password; the last two decoded, and empty where absent.

    Raises:
        ConfigError: It is not a URL with a host.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError as error:
        message = "the URL of a datastore does not parse; write scheme://host[:port]/path"
        raise ConfigError(message) from error
    if not parts.hostname:
        message = "the URL of a datastore has no host; write scheme://host[:port]/path"
        raise ConfigError(message)
    user, separator, host = parts.netloc.rpartition("@")
    if not separator:
        return url, "", ""
    name, _, password = user.partition(":")
    return url.replace(parts.netloc, host, 1), unquote(name), unquote(password)


def origin_of(url: str) -> tuple[str, str, int]:
    """Give scheme, host and port, which together are one security domain.

    Read by the parser that also chooses where to connect: two parsers may see two hosts in one
    text.

    Raises:
        ValueError: It is not a URL of http or https.

    Source: RFC 6454, section 4.
    """
    parts = parse_url(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.host:
        message = "not a URL of http or https"
        raise ValueError(message)
    return parts.scheme, parts.host.strip("[]"), parts.port or _DEFAULT_PORTS[parts.scheme]


def refuse_ambiguous(url: str) -> None:
    """Refuse a URL from a server in which another parser may find another host.

    Raises:
        ValueError: It has a user, a backslash, a space or a character that is not printable.
    """
    unclear = "\\" in url or " " in url or not url.isprintable()
    if unclear or "@" in urlsplit(url).netloc:
        message = "a URL that may be read in two ways"
        raise ValueError(message)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, so that nothing crosses a wire."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
