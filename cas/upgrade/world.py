"""What a plan asks about the device that it is for."""

__all__ = ["World"]

from pathlib import Path
from typing import Protocol

from cas.model.volume_name import VolumeName
from cas.upgrade.items import Identity


class World(Protocol):
    """What a plan depends on besides what is found."""

    def inode(self, path: Path) -> int | None:
        """Which file has a name; None if there is none."""

    def must_copy(self, source: Path, target: Path) -> bool:
        """Whether no rename leads from one to the other."""

    def allocated(self, path: Path) -> int:
        """Allocated bytes of everything in a directory."""

    def copied(self, source: Path, target: Path) -> tuple[Identity, int] | None:
        """What the journal has of a copy: which file its source was, and its target's inode."""

    def converted(self, target: Path) -> bool:
        """Whether a conversion to a target was completed at any time."""

    def converted_from(self, source: Path, target: Path) -> bool:
        """Whether what has this name was converted to that target before."""

    def is_vacant(self, directory: Path) -> bool:
        """Whether a directory is missing, or holds nothing but directories."""

    def has_snapshot(self, store: Path, container: Path) -> bool:
        """Whether the snapshot that a container's directory belongs to is in a store."""

    def why_left(self, store: Path) -> str:
        """What keeps an old store since its last merge; empty if it was not merged yet."""

    def suffixed(self, volume: VolumeName) -> Path | None:
        """A volume that EVE's own releases have made under this name and a format after it."""
