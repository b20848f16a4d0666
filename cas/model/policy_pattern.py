"""Whether a pattern of a signature policy can match any name at all; pure rules.

A rule that can match nothing protects nothing, and looks as if it did.
"""

__all__ = ["check_identity", "check_pattern"]

import re

from cas.errors import InvalidNameError
from cas.model.policy_name import (
    REGISTRY,
    canonical_host,
    canonical_scheme,
    identity_name,
    policy_name,
)
from cas.model.reference import ImageReference

_GLOB = re.compile(r"[*?\[]")
_HUB = "docker.io"


def check_pattern(pattern: str) -> None:
    """Return if names exist, of :func:`cas.model.policy_name.policy_name`, that a pattern matches.

    What stands behind the first wildcard of a repository or path is not looked at.

    Raises:
        InvalidNameError: None can; the message has the form in which some could.
    """
    scheme, separator, rest = pattern.partition("://")
    if separator and _GLOB.search(scheme):
        return
    if separator and canonical_scheme(scheme) != REGISTRY:
        normal = _of_url(canonical_scheme(scheme), rest)
    else:
        normal = _of_reference(rest if separator else pattern)
    _require_same(pattern, normal)


def check_identity(pattern: str) -> None:
    """Do the same for names of :func:`cas.model.policy_name.identity_name`; empty asks for none.

    Raises:
        InvalidNameError: As :func:`check_pattern`.
    """
    if not pattern:
        return
    rest = pattern.partition("://")[2] or pattern
    normal = _of_reference(rest)
    _require_same(pattern, normal if _GLOB.search(rest) else identity_name(rest))


def _require_same(pattern: str, normal: str) -> None:
    if normal != pattern:
        raise InvalidNameError(
            f"the pattern {pattern[:200]!r} can match no name; write {normal[:200]!r}",
            value=pattern[:200],
        )


def _of_url(scheme: str, rest: str) -> str:
    host, slash, path = rest.partition("/")
    url = f"{scheme}://{_host(scheme, host.rpartition('@')[2])}{slash}{path}"
    return url if _GLOB.search(url) else policy_name(url)


def _of_reference(pattern: str) -> str:
    if not _GLOB.search(pattern):
        return policy_name(ImageReference.parse(pattern))
    host, slash, path = pattern.partition("/")
    if _GLOB.search(host):
        return f"{_host(REGISTRY, host)}{slash}{path}"
    if not any(sign in host for sign in ".:") and host.lower() != "localhost":
        host, path = _HUB, pattern
    host = _host(REGISTRY, host)
    literal = _GLOB.split(path, maxsplit=1)[0]
    repository = re.split("[:@]", literal, maxsplit=1)[0]
    path = repository.lower() + path[len(repository) :]
    if host == _HUB and repository != literal and "/" not in repository:
        path = f"library/{path}"
    return f"{host}/{path}"


def _host(scheme: str, host: str) -> str:
    if not _GLOB.search(host):
        return canonical_host(scheme, host)
    return host if "[" in host else host.lower()
