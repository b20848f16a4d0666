"""The seam through which every change to the file system passes; lowest module of fsops.

Each function of fsops announces a change right before the system call that makes it. Nobody
listens in production, and an announcement then costs one comparison. Crash tests install an
observer that raises, or kills the process, at the k-th announcement: what is on disk at that
moment is what a crash at that point leaves behind.

It records nothing and decides nothing.
"""

__all__ = ["Effect", "Observer", "effect", "observed"]

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Effect(StrEnum):
    """Kinds of change."""

    WRITE_FILE = "write-file"
    RENAME = "rename"
    LINK = "link"
    UNLINK = "unlink"
    FSYNC = "fsync"
    MKDIR = "mkdir"
    ACCESS = "access"
    """Owner, mode or flags."""
    ENCRYPT = "encrypt"
    """A directory gets an encryption policy."""
    KEY = "key"
    """The kernel gets or loses a key."""
    MOUNT = "mount"
    UNMOUNT = "umount"


Observer = Callable[[Effect, str], None]
"""Receives the kind of the change that is about to happen and the path it happens to."""

# One per process and not per thread: a crash hits all threads, and so must its simulation.
_observer: Observer | None = None


def effect(name: Effect, path: os.PathLike[str] | str) -> None:
    """Announce a change to ``path`` that happens next, unless the observer raises."""
    if _observer is not None:
        _observer(name, os.fspath(path))


@contextmanager
def observed(callback: Observer) -> Iterator[None]:
    """Let ``callback`` see every change of this process until the block ends.

    The callback runs in the thread that makes the change, before the change; what it raises
    comes out of the function that was about to act. Observers do not nest: the inner one
    replaces the outer one for its block.
    """
    global _observer  # noqa: PLW0603 - see above: one observer per process is the point
    outer = _observer
    _observer = callback
    try:
        yield
    finally:
        _observer = outer
