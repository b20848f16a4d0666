"""Whether anybody else has a file open, asked of the kernel, which counts them all.

A write lease is given only while nobody else has the file open, and whoever opens it from then on
waits until the lease ends. That covers what a walk through /proc cannot see: other pid namespaces,
descriptors under way in a socket, and users inside the kernel such as loop devices.
"""

__all__ = ["SoleUse", "is_open_to_write", "open_to_read"]

import os
import time
from pathlib import Path
from typing import Self

from cas.errors import InUseError
from cas.fsops import descriptors
from cas.fsops.translation import translated

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK_SECONDS = 0.1
"""How long a listing, or a child between fork and exec, may have the file open."""
_LEASE_SECONDS = 60.0
"""Longer than the kernel lets a lease stand that somebody waits for, which is 45 s."""
_PAUSE_SECONDS = 0.002


class SoleUse:
    """Nobody else has a file open until its ``with`` block ends; made by :meth:`take`.

    This process included: what it has to open itself it opens before or after.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Prove that nobody has ``path`` open, under whatever name.

        Returns:
            None where the file system, or this process, may have no leases: nothing is known.

        Raises:
            InUseError: Somebody has it open, for longer than a look takes.
            StorageError: There is no such file, or a system call failed.
        """
        with translated("ask who uses", path):
            descriptor, taken = open_to_read(path), False
            try:
                taken = _take_lease(descriptor, alone=True)
            except BlockingIOError as error:
                message = f"somebody has {str(path)!r} open"
                raise InUseError(message, path=path) from error
            finally:
                if not taken:
                    os.close(descriptor)
        return cls(descriptor) if taken else None

    def is_awaited(self) -> bool:
        """Whether somebody has asked to write the file by now, and waits for the end of this.

        Who waits gets the file that had the name when they asked, whatever has it by then. True
        may stay true when they have given up.
        """
        return descriptors.is_wanted_to_write(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                # Explicitly: a forked child may share the open file and would keep the lease.
                descriptors.drop_lease(descriptor)
            finally:
                os.close(descriptor)


def is_open_to_write(path: Path) -> bool:
    """Whether somebody has a file open to write it for longer than a look takes.

    True as well where nobody can tell.

    Raises:
        StorageError: There is no such file, or a system call failed.
    """
    with translated("ask who writes", path):
        descriptor = open_to_read(path)
        try:
            if not _take_lease(descriptor, alone=False):
                return True
            descriptors.drop_lease(descriptor)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def open_to_read(path: Path) -> int:
    """Open a file to look at it, waiting for no pipe's other end, but for the end of a sole use.

    Raises:
        OSError: As of :func:`os.open`; a link is not followed. The caller translates.
    """
    deadline = time.monotonic() + _LEASE_SECONDS
    while True:
        try:
            return os.open(path, _READ)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def _take_lease(descriptor: int, *, alone: bool) -> bool:
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        try:
            return descriptors.take_lease(descriptor, alone=alone)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)
