"""Mounts that processes in other mount namespaces, such as containers, still have."""

__all__ = ["find_overlay_elsewhere"]

import os
import time
from collections.abc import Iterator
from pathlib import Path

from cas.fsops.mounts import MountPoint, iter_mounts

_PROC = Path("/proc")
_NEW_SECONDS = 10.0
"""Far more than a container takes to start, also on a device that is busy."""
_POLL_SECONDS = 0.05


def find_overlay_elsewhere(upper: str) -> tuple[int, Path] | None:
    """Find a process in whose mount namespace an overlay writes into ``upper``.

    What is mounted in a namespace that no process is in any more, or was detached, is not seen. A
    new namespace has copies of all mounts until its maker has removed them, as a container's does,
    so one that is found is given some seconds to go.

    Returns:
        The process and the mount point as it sees it; None if there is none.

    Raises:
        StorageError: This process's own mounts cannot be read.
    """
    deadline = time.monotonic() + _NEW_SECONDS
    while (found := _find(upper)) is not None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return found


def _find(upper: str) -> tuple[int, Path] | None:
    for pid, mounts in _tables():
        for point in mounts:
            if point.fs_type == "overlay" and point.option("upperdir") == upper:
                return pid, point.path
    return None


def _tables() -> Iterator[tuple[int, Iterator[MountPoint]]]:
    """Give the mounts of each namespace but our own, and one process that is in it."""
    seen = {_namespace(os.getpid())}
    for entry in os.listdir(_PROC):
        if not entry.isdigit():
            continue
        namespace = _namespace(int(entry))
        if namespace not in seen:
            seen.add(namespace)
            try:
                table = os.fsdecode((_PROC / entry / "mountinfo").read_bytes())
            except OSError:
                seen.discard(namespace)  # it has ended; another process may be in there
                continue
            yield int(entry), iter_mounts(table)


def _namespace(pid: int) -> str:
    try:
        return os.readlink(_PROC / str(pid) / "ns" / "mnt")
    except OSError:
        return ""
