"""Names of images.

An image may have any name that containerd takes. Names that follow docker's grammar have a
canonical form as well (``busybox`` is ``docker.io/library/busybox:latest``), under which other
tools look for them.
"""

__all__ = [
    "MAX_NAME_BYTES",
    "ImageReference",
    "check_image_name",
    "is_tag",
    "normalise_docker_name",
]

import re
from dataclasses import dataclass
from typing import Self

from cas.errors import InvalidNameError

MAX_NAME_BYTES = 1024
"""What a name of an image may have; containerd itself takes more."""

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"\w[\w.-]{0,127}"
_GRAMMAR = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)
_COMPONENT_ALONE = re.compile(_COMPONENT, re.ASCII)
_TAG_ALONE = re.compile(_TAG, re.ASCII)
_DEFAULT_DOMAIN = "docker.io"
_DOCKER_DOMAINS = (_DEFAULT_DOMAIN, "index.docker.io")
_MAX_REPOSITORY = 255


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A reference of docker's grammar in canonical form.

    Args:
        domain: Registry, never empty.
        path: Repository in the registry.
        tag: Empty if there is none (only beside a digest).
        digest: ``sha256:<hex>`` or empty.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.domain}/{self.path}{tag}{digest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse and complete: domain ``docker.io``, ``library/``, tag ``latest``.

        Raises:
            InvalidNameError: The text does not follow docker's grammar.

        Source: distribution's reference grammar and its normalisation of familiar names.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise _invalid(text)
        domain, path = match["domain"] or "", match["path"]
        if domain and not _is_registry(domain):
            if _COMPONENT_ALONE.fullmatch(domain) is None:
                raise _invalid(text)
            domain, path = "", f"{domain}/{path}"
        if not domain or domain in _DOCKER_DOMAINS:
            domain = _DEFAULT_DOMAIN
            path = path if "/" in path else f"library/{path}"
        if len(domain) + 1 + len(path) > _MAX_REPOSITORY:
            raise _invalid(text)
        digest = match["digest"] or ""
        return cls(domain, path, match["tag"] or ("" if digest else "latest"), digest)


def _is_registry(domain: str) -> bool:
    return any(sign in domain for sign in ".:[") or domain == "localhost"


def _invalid(text: str) -> InvalidNameError:
    return InvalidNameError(
        f"{text[:200]!r} is not a reference of the form [registry/]repository[:tag][@digest]",
        value=text[:200],
    )


def normalise_docker_name(text: str) -> str:
    """Give the canonical form of a reference that follows docker's grammar.

    Raises:
        InvalidNameError: It does not.
    """
    return str(ImageReference.parse(text))


def is_tag(text: str) -> bool:
    """Whether the text can be a tag, as archives give it in place of a reference."""
    return _TAG_ALONE.fullmatch(text) is not None


def check_image_name(text: str) -> str:
    """Return ``text`` if it can be the name of an image.

    Raises:
        InvalidNameError: It is empty, longer than 1024 bytes, holds a character that cannot be
            printed, or begins or ends with a space.
    """
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= MAX_NAME_BYTES or not text.isprintable() or text != text.strip():
        raise InvalidNameError(
            f"image name {text[:200]!r} is not 1 to {MAX_NAME_BYTES} bytes of printable text "
            "without spaces around it",
            value=text[:200],
        )
    return text
