"""Where a containerd lives: the store's own, or one on another root for as long as that is read."""

__all__ = ["Place"]

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cas.model.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of one containerd.

    Args:
        root: What it keeps.
        run: Directory of its state and its sockets, which no other containerd has.
        socket: Where it listens.
        collects: Whether it may collect garbage unasked.
    """

    root: Path
    run: Path
    socket: Path
    collects: bool = True

    @classmethod
    def of_store(cls, settings: Settings) -> Self:
        """The store's own."""
        return cls(settings.layout.case, settings.layout.run, settings.socket)

    @classmethod
    def of_old_store(cls, settings: Settings, root: Path) -> Self:
        """One on the root of older software; nothing in it goes because nobody refers to it."""
        run = settings.layout.old_store_run
        return cls(root, run, run / "containerd.sock", collects=False)

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.run / "state"

    @property
    def ttrpc(self) -> Path:
        """The second socket that it insists on opening; nobody uses it."""
        return self.run / "ttrpc.sock"

    @property
    def config(self) -> Path:
        """The configuration file that the supervisor writes."""
        return self.run / "containerd.toml"
