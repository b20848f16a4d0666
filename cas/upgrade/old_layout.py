"""Where the old software kept things. Pure: paths only.

When it may go: no supported device can have been switched off since before the new layout.
"""

__all__ = ["OldLayout"]

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_LONGEST_NAME = 200
"""Bytes of a name to which some can be added: file systems have names of 255."""
_OBJECT_KINDS_KEPT = ("appImg.obj", "baseOs.obj")


@dataclass(frozen=True, slots=True)
class OldLayout:
    """The old paths below one persist directory.

    Args:
        persist: Absolute path of the directory.
    """

    persist: Path

    @property
    def disks(self) -> Path:
        """Disks of virtual machines."""
        return self.persist / "img"

    @property
    def containers(self) -> Path:
        """A directory per prepared container."""
        return self.persist / "runx" / "pods" / "prepared"

    @property
    def above_containers(self) -> tuple[Path, ...]:
        """The directories on the way to them, the highest first."""
        return (self.persist / "runx", self.persist / "runx" / "pods")

    @property
    def stores(self) -> tuple[Path, ...]:
        """containerd's roots, the later one first."""
        return (self.persist / "vault" / "containerd", self.persist / "containerd")

    @property
    def downloads(self) -> Path:
        """Downloads of all kinds, a directory per kind."""
        return self.persist / "downloads"

    @property
    def verified(self) -> tuple[Path, ...]:
        """Verified downloads of the kinds that are kept: a directory per digest."""
        return tuple(self.downloads / kind / "verified" for kind in _OBJECT_KINDS_KEPT)

    @property
    def latch(self) -> Path:
        """Digests of tags."""
        return self.persist / "status" / "zedmanager" / "AppAndImageToHash"

    @staticmethod
    def removing(original: Path) -> Path:
        """What an original is called while it is removed, and need not be whole any more."""
        name = original.name
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        return original.with_name(f".{name}.removing")

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The device's configuration, the best copy first."""
        directory = self.persist / "checkpoint"
        names = ("config", "config.bak", "lastconfig", "lastconfig.bak")
        return tuple(directory / name for name in names)
