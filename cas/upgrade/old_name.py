"""Names of the old layout: which image, which app, how often purged. Pure, and strict.

EVE's own parser takes the first thing in a path that looks like a name: half-written files, short
digests and tails of all kinds pass for volumes. Here the whole name has to be one, and whatever
is not says why.
"""

__all__ = ["OldName", "OldNameError", "parse_old_container", "parse_old_disk"]

import re
import uuid
from dataclasses import dataclass

from cas.model.digest import Digest

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_STEM = re.compile(
    rf"(?P<digest>[0-9a-fA-F]+)-(?P<app>{_UUID})(?:#(?P<purge>[0-9]+))?(?P<rest>.*)",
    re.ASCII | re.DOTALL,
)
_NEW_STYLE = re.compile(rf"{_UUID}#[0-9]+(\..*)?", re.ASCII | re.DOTALL)
_FORMAT = re.compile(r"\.([0-9A-Za-z]+)", re.ASCII)
_UNFINISHED = ".tmp"
_DIGEST_DIGITS = 64
_PURGE_COUNTERS = 2**32
_MAX_PURGE_DIGITS = 10


class OldNameError(ValueError):
    """What an entry's name is instead of a volume's; the message says it."""


@dataclass(frozen=True, slots=True)
class OldName:
    """What the old name of a volume says.

    Args:
        digest: Of the image that the volume was made from.
        app: UUID of the app instance that used it.
        purge: How often the app's data had been purged.
        format: Extension of a disk, as it is written; empty for a container.
    """

    digest: Digest
    app: uuid.UUID
    purge: int
    format: str


def parse_old_disk(name: str) -> OldName:
    """Parse ``<sha256>-<appUUID>[#<purge>].<format>``, the name of a disk in ``img``.

    Raises:
        OldNameError: It is anything else.
    """
    parsed, rest = _parse(name)
    match = _FORMAT.fullmatch(rest)
    if match is None:
        raise OldNameError("the name of a disk ends with .<format>")
    return OldName(parsed.digest, parsed.app, parsed.purge, match[1])


def parse_old_container(name: str) -> OldName:
    """Parse ``<sha256>-<appUUID>[#<purge>]``, the name of a prepared container.

    Raises:
        OldNameError: It is anything else.
    """
    parsed, rest = _parse(name)
    if rest:
        raise OldNameError(f"the name of a container does not go on with {rest[:40]!r}")
    return parsed


def _parse(name: str) -> tuple[OldName, str]:
    if name.endswith(_UNFINISHED):
        raise OldNameError("it is a temporary file of a write that was interrupted")
    if _NEW_STYLE.fullmatch(name):
        raise OldNameError("it is named as in the new layout, but lies in a place of the old one")
    match = _STEM.fullmatch(name)
    if match is None:
        raise OldNameError("the name is not <sha256>-<app UUID>")
    digest = match["digest"]
    if len(digest) != _DIGEST_DIGITS:
        raise OldNameError(f"its digest has {len(digest)} digits instead of {_DIGEST_DIGITS}")
    app = uuid.UUID(match["app"])
    if not app.int:
        raise OldNameError("the UUID of its app is zero")
    purge = _purge(match["purge"])
    return OldName(Digest.parse_foreign(digest), app, purge, ""), match["rest"]


def _purge(text: str | None) -> int:
    if text is None:
        return 0
    counter = int(text) if len(text) <= _MAX_PURGE_DIGITS else _PURGE_COUNTERS
    if counter >= _PURGE_COUNTERS:
        raise OldNameError(f"its purge counter {text[:40]} has more than 32 bits")
    return counter
