"""What the old software noted about tags: which digest a drive's image had.

A JSON file per drive, found by its name, so that nothing is listed or kept. A power cut may have
left one empty beside its ``.bak``. What cannot be read counts as not noted.
"""

__all__ = ["read_latch"]

import logging
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from cas.errors import CasError, InvalidNameError, SourceNotFoundError
from cas.fsops.reading import open_regular
from cas.model.digest import Digest
from cas.upgrade.matching import LatchKey

_log = logging.getLogger(__name__)
_MAX_ENTRY_BYTES = 64 * 1024


class _Entry(msgspec.Struct, kw_only=True):
    app: uuid.UUID = msgspec.field(name="AppUUID")
    image: uuid.UUID = msgspec.field(name="ImageID")
    digest: str = msgspec.field(name="Hash")
    purge: int = msgspec.field(name="PurgeCounter", default=0)


def read_latch(directory: Path, keys: Iterable[LatchKey]) -> dict[LatchKey, Digest]:
    """Look up digests; keys that have none are left out.

    Raises:
        StorageError: The directory cannot be read.
    """
    found = {}
    for key in keys:
        for path in _paths(directory, key):
            digest = _read(path, key)
            if digest is not None:
                found[key] = digest
                break
    return found


def _paths(directory: Path, key: LatchKey) -> Iterator[Path]:
    purge = f".{key.purge}" if key.purge else ""
    name = f"{key.app}.{key.image}{purge}.json"
    yield directory / name
    yield directory / f"{name}.bak"


def _read(path: Path, key: LatchKey) -> Digest | None:
    try:
        with open_regular(path) as file:
            entry = msgspec.json.decode(next(file.chunks(), b"")[:_MAX_ENTRY_BYTES], type=_Entry)
        if (entry.app, entry.image, entry.purge) == (key.app, key.image, key.purge):
            return Digest.parse_foreign(entry.digest)
    except SourceNotFoundError:
        return None
    except (msgspec.MsgspecError, InvalidNameError, CasError) as error:
        _log.warning("entry of the latch unreadable path=%s error=%s", path, error)
    return None
