"""What a power cut would leave of a directory if nothing survived it that was not synced.

Stricter than any file system at hand, which all write more than they were asked to: a file has the
content of the last sync of itself, a directory the names of its own. What was never synced is there
as ``UNSYNCED`` if its name is.
"""

__all__ = ["UNSYNCED", "SyncRecord", "View"]

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from cas.fsops import kernel

Value = tuple[object, ...]
View = dict[str, Value]
"""Paths below the directory and what is there: mode, owner; and of a file time and content."""

UNSYNCED: Value = ("unsynced",)
_PASSED_ON = frozenset({"sync_directory", "sync_file_system", "_sync_parents"})
"""Who syncs for somebody else."""


class SyncRecord:
    """Records the syncs of this process until its ``with`` block ends.

    Args:
        root: The directory; all of it counts as synced at the beginning.
        ignored: A site whose syncs do nothing; see ``sites``.
    """

    def __init__(self, root: Path, ignored: str = "") -> None:
        self.sites: list[str] = []
        """Where in the code syncs were called for."""
        self._root = root
        self._ignored = ignored
        self._values: dict[tuple[int, int], Value] = {}
        self._names: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
        self._patch = pytest.MonkeyPatch()

    def lost(self) -> View:
        """What there would be if nothing survived that was not synced."""
        view: View = {}
        pending = [("", _key(self._root.stat()))]
        while pending:
            path, key = pending.pop()
            view[path] = self._values.get(key, UNSYNCED)
            for name, child in self._names.get(key, {}).items():
                pending.append((f"{path}/{name}", child))
        return view

    def named(self) -> View:
        """What there would be if all names and rights survived, and of files what was synced."""
        view: View = {}
        for path in _paths(self._root):
            status = path.lstat()
            value = _value(path, status)
            synced = self._values.get(_key(status), UNSYNCED)[3:] == value[3:]
            is_file = stat.S_ISREG(status.st_mode)
            view[str(path)[len(str(self._root)) :]] = value if synced or not is_file else UNSYNCED
        return view

    def __enter__(self) -> Self:
        self._add_file_system(self._root)
        syncs: list[tuple[object, str, Callable[[int], object], Callable[[Path], None]]] = [
            (os, "fsync", os.fsync, self._add),
            (os, "fdatasync", os.fdatasync, self._add),
            (kernel, "sync_file_system", kernel.sync_file_system, self._add_file_system),
        ]
        for module, name, call, add in syncs:
            self._patch.setattr(module, name, self._recording(call, add))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _recording(
        self, call: Callable[[int], object], add: Callable[[Path], None]
    ) -> Callable[[int], None]:
        def record(descriptor: int) -> None:
            call(descriptor)
            site = _site()
            if site not in self.sites:
                self.sites.append(site)
            if site != self._ignored:
                add(Path(f"/proc/self/fd/{descriptor}"))

        return record

    def _add_file_system(self, place: Path) -> None:
        device = place.stat().st_dev
        whole = not self._values
        for path in _paths(self._root):
            if whole or path.lstat().st_dev == device:
                self._add(path, links=True)

    def _add(self, path: Path, *, links: bool = False) -> None:
        status = path.lstat() if links else path.stat()
        self._values[_key(status)] = _value(path, status)
        if not stat.S_ISDIR(status.st_mode):
            return
        names = self._names[_key(status)] = {}
        for child in path.iterdir():
            of_child = child.lstat()
            names[child.name] = _key(of_child)
            if not _is_synced_by_itself(of_child):
                self._values[_key(of_child)] = _value(child, of_child)


def _site() -> str:
    """Name the place in the code that wants a sync."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in _PASSED_ON and frame.f_back is not None:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}:{frame.f_lineno}"


def _paths(root: Path) -> list[Path]:
    return [root, *root.rglob("*")]


def _key(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _is_synced_by_itself(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


def _value(path: Path, status: os.stat_result) -> Value:
    rights = (status.st_mode, status.st_uid, status.st_gid)
    if stat.S_ISREG(status.st_mode):
        return (*rights, status.st_mtime_ns, path.read_bytes())
    return (*rights, str(path.readlink()) if stat.S_ISLNK(status.st_mode) else status.st_rdev)
