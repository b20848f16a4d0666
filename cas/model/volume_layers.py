"""What a container volume with snapshots is made of: the ``history`` in ``volume.json``."""

__all__ = ["MAX_SNAPSHOT_NAME", "FrozenLayer", "VolumeHistory", "check_snapshot_name"]

import re
from dataclasses import dataclass
from datetime import datetime

from cas.errors import InvalidNameError

MAX_SNAPSHOT_NAME = 128
"""Characters."""

_SNAPSHOT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.:+-]{{0,{MAX_SNAPSHOT_NAME - 1}}}", re.ASCII)


def check_snapshot_name(text: str) -> str:
    """Give the name of a volume's snapshot back if it is one.

    Raises:
        InvalidNameError: It is not.
    """
    if _SNAPSHOT.fullmatch(text) is None:
        raise InvalidNameError(
            f"snapshot name {text[:100]!r} is not 1 to {MAX_SNAPSHOT_NAME} letters, digits and "
            "'_.:+-', the first a letter or digit; for example before-update",
            value=text[:100],
        )
    return text


@dataclass(frozen=True, slots=True)
class FrozenLayer:
    """A writable layer that was frozen: a committed snapshot of containerd's.

    Args:
        key: Its name in containerd.
        parent: Committed snapshot that it stands on; empty for none.
        snapshot: Name of the volume's snapshot that it is the top of; None for a layer that is
            there only because others stand on it.
        created: When it was frozen, aware UTC.
        frozen_from: Key that it had when it was writable.
        moved_from: Number of the snapshotter's directory that its files come from, when it took the
            place of a layer with another parent.
    """

    key: str
    parent: str
    snapshot: str | None
    created: datetime
    frozen_from: str
    moved_from: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeHistory:
    """The layers of a volume of which a snapshot was taken.

    Args:
        parent: Committed snapshot that the writable layer stands on; empty for none.
        layers: Frozen layers, in order of their freezing; parents come before children.
        next_number: Of the next key; none is used twice.
        moved_from: As in :class:`FrozenLayer`, of the writable layer, until its files are there.
        unused: The writable layer was never mounted. If it is missing it has yet to be made; one
            that was in use is lost.
    """

    parent: str
    layers: tuple[FrozenLayer, ...]
    next_number: int
    moved_from: int | None = None
    unused: bool = False
