"""Who keeps a directory tree busy; public through ``cas.fsops.mounts``.

A diagnosis for messages: what it finds may be gone a moment later, and what it may not look at it
leaves out. Nothing is decided by it.
"""

__all__ = ["holders"]

import os
from collections.abc import Iterator
from pathlib import Path

from cas.fsops.processes import process_name

_PROC = Path("/proc")
_LOOP_DEVICES = Path("/sys/block")
_LINKS = ("cwd", "root", "exe")
_KERNEL = 0


def holders(path: Path) -> list[tuple[int, str]]:
    """Find the processes that work in ``path`` or have something below it open or mapped.

    A loop device that is backed by a file there counts as process 0 with its name.

    Returns:
        Process ids with their short names, ordered by id.
    """
    prefix = os.path.realpath(path)
    found = [(pid, process_name(pid)) for pid in _processes() if _holds(pid, prefix)]
    return [*_loop_devices(prefix), *sorted(found)]


def _processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir(_PROC) if entry.isdigit())


def _holds(pid: int, prefix: str) -> bool:
    return any(_is_below(place, prefix) for place in _places(_PROC / str(pid)))


def _is_below(place: str, prefix: str) -> bool:
    return place == prefix or place.startswith(prefix.rstrip("/") + "/")


def _places(process: Path) -> Iterator[str]:
    for name in _LINKS:
        yield from _read_link(process / name)
    for name in _list(process / "fd"):
        yield from _read_link(process / "fd" / name)
    yield from _mapped(process / "maps")


def _read_link(path: Path) -> Iterator[str]:
    try:
        yield os.readlink(path)
    except OSError:  # ended, closed, or not ours to see
        return


def _list(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _mapped(path: Path) -> Iterator[str]:
    try:
        with path.open(errors="surrogateescape") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(maxsplit=5)
                if len(fields) > 5:  # noqa: PLR2004 - the sixth field is the file
                    yield fields[5]
    except OSError:
        return


def _loop_devices(prefix: str) -> Iterator[tuple[int, str]]:
    for name in _list(_LOOP_DEVICES):
        try:
            backing = (_LOOP_DEVICES / name / "loop" / "backing_file").read_text()
        except OSError:
            continue
        if _is_below(backing.rstrip("\n"), prefix):
            yield _KERNEL, name
