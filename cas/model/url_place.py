"""Where a URL leads, by which URLs of the same place are compared; pure rules."""

__all__ = ["UrlPlace"]

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "sftp": 22}


@dataclass(frozen=True, slots=True)
class UrlPlace:
    """A server and what is on it; user, query and a slash at the end make no difference.

    Args:
        scheme: In lower case.
        host: In lower case.
        port: None where the scheme has none of its own.
        path: As it is written, without a slash at its end.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: It does not parse.
        """
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        return cls(parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"))

    def holds(self, other: Self) -> bool:
        """Whether the other one is here, or below; a path ends where a name in it does."""
        here = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return here and (other.path == self.path or other.path.startswith(f"{self.path}/"))
