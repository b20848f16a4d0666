"""Answers what a plan asks about the device it is for; looks only."""

__all__ = ["Device", "is_vacant"]

import os
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

from cas.containerd.root_directory import knows_snapshot
from cas.fsops.encryption import EncryptionPolicy, read_policy
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.upgrade.completion import snapshot_key
from cas.upgrade.items import Identity, Planned
from cas.upgrade.journal import Journal, Step, as_text
from cas.upgrade.merge_account import MergeAccount


class Device:
    """One persist directory; its file systems are looked at once.

    Args:
        persist: The directory.
        journal: Of earlier runs.
        advance: Told of each entry that is measured; may stop it.
    """

    def __init__(
        self, persist: Path, journal: Journal, advance: Callable[[int], object] = lambda _: None
    ) -> None:
        self._persist = persist
        self._journal = journal
        self._advance = advance
        self._place = cache(_place)

    def inode(self, path: Path) -> int | None:
        """Which file has a name; None if there is none."""
        with translated("inspect", path):
            try:
                return path.lstat().st_ino
            except FileNotFoundError:
                return None

    def must_copy(self, source: Path, target: Path) -> bool:
        """Whether file system or encryption differ, so that no rename leads to the target."""
        return self._place(source.parent) != self._place(target.parent)

    def returns_room(self, planned: Planned) -> bool:
        """Whether the room that a copy takes comes back when its original goes."""
        if planned.target is None:
            return True
        source, target = planned.found.path, planned.target
        return self._place(source.parent)[0] == self._place(target.parent)[0]

    def allocated(self, path: Path) -> int:
        """Allocated bytes of everything in a directory."""
        return allocated_bytes(path, advance=self._advance)

    def copied(self, source: Path, target: Path) -> tuple[Identity, int] | None:
        """What the journal has of a copy: which file its source was, and its target's inode."""
        entry = self._journal.find(self.told(source), self.told(target))
        if entry is None or entry.step is not Step.INTENDED:
            return None
        return Identity(*entry.identity), entry.inode

    def converted(self, target: Path) -> bool:
        """Whether a conversion to a target was completed at any time."""
        return self._journal.converted(self.told(target))

    def converted_from(self, source: Path, target: Path) -> bool:
        """Whether what has this name was converted to that target before."""
        entry = self._journal.find(self.told(source), self.told(target))
        return entry is not None and entry.step is Step.DONE

    def is_vacant(self, directory: Path) -> bool:
        """See :func:`is_vacant`."""
        return is_vacant(directory)

    def has_snapshot(self, store: Path, container: Path) -> bool:
        """Whether the snapshot that a container's directory belongs to is in a store."""
        return knows_snapshot(store, snapshot_key(container))

    def why_left(self, store: Path) -> str:
        """What keeps an old store since its last merge; empty if it was not merged yet."""
        return MergeAccount(Layout(self._persist).upgrade_merges).why_left(store)

    def suffixed(self, volume: VolumeName) -> Path | None:
        """A volume that EVE's own releases have made under this name and a format after it."""
        return self._suffixed.get(str(volume))

    @cached_property
    def _suffixed(self) -> dict[str, Path]:
        layout = Layout(self._persist)
        found = {}
        for directory in (layout.clear_volumes, layout.volumes):
            with translated("list", directory):
                paths = list(directory.iterdir()) if directory.is_dir() else []
            for path in paths:
                stem, _, suffix = path.name.partition(".")
                if stem and suffix:
                    found[stem] = path
        return found

    def told(self, path: Path) -> str:
        """Give a path as the journal has it: below the persist directory."""
        return as_text(path.relative_to(self._persist))


def is_vacant(directory: Path) -> bool:
    """Whether a directory is missing, or holds nothing but directories.

    Raises:
        StorageError: It cannot be read.
    """
    with translated("list", directory):
        if not directory.is_dir() or directory.is_symlink():
            return not os.path.lexists(directory)
        for place, directories, files in os.walk(directory):
            links = any((Path(place) / name).is_symlink() for name in directories)
            if files or links:
                return False
    return True


def _place(directory: Path) -> tuple[int, EncryptionPolicy | None]:
    """File system and encryption of a directory, or of where it will be made."""
    while not directory.is_dir():
        directory = directory.parent
    with translated("inspect", directory):
        return directory.stat().st_dev, read_policy(directory)
