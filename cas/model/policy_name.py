"""The one name under which a signature policy looks for content; pure rules.

What reaches the same server and the same object has the same name, however it is written.
"""

__all__ = ["REGISTRY", "canonical_host", "canonical_scheme", "identity_name", "policy_name"]

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import urlsplit

from cas.errors import InvalidNameError
from cas.model.reference import ImageReference

_HUB = "docker.io"
_HUB_ALIASES = ("index.docker.io", "registry-1.docker.io")
REGISTRY = "docker"
"""Scheme of what is named as in references, without it."""
_REGISTRY_ALIASES = (REGISTRY, "oci")
_DEFAULT_PORTS = {"http": "80", "https": "443", "sftp": "22", REGISTRY: "443"}
_NEEDLESS_ESCAPE = re.compile(r"%(?:2[DdEeFf]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[FfCc]|7[Ee])")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What makes a host an address if it is the last part; RFC 1123 has no names that end so."""
_AMBIGUOUS_SEGMENTS = ("", ".", "..")


def policy_name(source: ImageReference | str) -> str:
    """Give the name of a reference, or of a file's URL, that patterns are compared with.

    Hosts are lower case, without the port that goes without saying; names of docker's hub become
    ``docker.io``; a digest beside a tag is left out, and so are user and query of a URL. A
    repository as a URL (``docker://``, ``oci://``) is named as in references.

    Raises:
        InvalidNameError: The URL can be read in several ways, by its path or its host.
    """
    if isinstance(source, ImageReference):
        tag = f":{source.tag}" if source.tag else f"@{source.digest}"
        return f"{canonical_host(REGISTRY, source.domain)}/{source.path}{tag}"
    return _url_name(source)


def identity_name(text: str) -> str:
    """Give the form of :func:`policy_name` of the name that was signed with an image.

    Signers leave the tag out or not, which stays so, and call docker's hub by its other names. What
    is no reference stays as it is.
    """
    try:
        name = policy_name(ImageReference.parse(text))
    except InvalidNameError:
        return text
    tagged = ":" in text.rpartition("/")[2] or "@" in text
    return name if tagged else name.removesuffix(":latest")


def _url_name(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidNameError(
            "a URL of a file does not parse; write scheme://host/path"
        ) from error
    path = parts.path
    scheme = canonical_scheme(parts.scheme)
    if not _is_plain(url, path):
        raise InvalidNameError(
            "a signature policy cannot tell what a URL means that has '.', '..' or empty parts in "
            "its path, escapes that it does not need, backslashes or spaces; write it without them"
        )
    host = canonical_host(scheme, parts.netloc.rpartition("@")[2])
    return f"{host}{path}" if scheme == REGISTRY else f"{scheme}://{host}{path}"


def _is_plain(url: str, path: str) -> bool:
    readable = url.isprintable() and " " not in url and "\\" not in url
    segments = path.removeprefix("/").split("/")
    ambiguous = any(segment in _AMBIGUOUS_SEGMENTS for segment in segments)
    return readable and not ambiguous and _NEEDLESS_ESCAPE.search(path) is None


def canonical_scheme(scheme: str) -> str:
    """Give the one scheme of URLs that mean the same kind of place."""
    scheme = scheme.lower()
    return REGISTRY if scheme in _REGISTRY_ALIASES else scheme


def canonical_host(scheme: str, netloc: str) -> str:
    """Give host and port as names have them.

    Args:
        scheme: As :func:`canonical_scheme` gives it.
        netloc: Host, with port if any, without user.

    Raises:
        InvalidNameError: The host has other spellings, and this is not the plain one.
    """
    host, colon, port = netloc.lower().rpartition(":")
    if not colon or not port.isdecimal():
        host, port = netloc.lower().removesuffix(":"), ""
    host, port = host.removesuffix("."), port.lstrip("0")
    if not host.isascii() or "%" in host:
        raise _spelled_oddly(host)
    if scheme in _DEFAULT_PORTS:  # elsewhere it is the name of a bucket
        host = _plain_address(host)
    if scheme == REGISTRY and host in _HUB_ALIASES:
        host = _HUB
    return host if port in ("", _DEFAULT_PORTS.get(scheme)) else f"{host}:{port}"


def _plain_address(host: str) -> str:
    """Give the one spelling of a host that is an address; others stay as they are.

    Escapes are decoded, other letters than ASCII's folded, and numbers such as ``127.1`` taken for
    addresses by whoever connects, so that names without end would lead to the same server.
    """
    try:
        if host.startswith("["):
            address = IPv6Address(host.removeprefix("[").removesuffix("]"))
            if address.ipv4_mapped is None:
                return f"[{address}]"
            raise _spelled_oddly(host)
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            return str(IPv4Address(host))
    except AddressValueError as error:
        raise _spelled_oddly(host) from error
    return host


def _spelled_oddly(host: str) -> InvalidNameError:
    return InvalidNameError(
        f"a signature policy cannot tell what the host {host[:200]!r} means; write it in ASCII "
        "(xn--…) without escapes, or as a whole address of four decimal numbers or of IPv6"
    )
