"""Content that is written, proven and linked by its inode, never by a name.

A name can be swapped, aliased by a hard link, or kept open by a writer; then what was hashed is
not what is stored. :class:`StagedInode` is a file that only this process ever had open.
:class:`~cas.fsops.takeover.ExclusiveInode`, also to be had from here, is somebody else's file
that is proven to have no writer and no second name.

Linking makes a name, not a durable one: syncing the directory is the caller's, once per batch.
Nothing here hashes.
"""

__all__ = ["ExclusiveInode", "StagedInode", "clone"]

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from cas.errors import InUseError, StorageError
from cas.fsops import descriptors, kernel
from cas.fsops.descriptors import clone
from cas.fsops.durable import temporary_name
from cas.fsops.effects import Effect, effect
from cas.fsops.takeover import ExclusiveInode
from cas.fsops.translation import translated

_SEALED_MODE = 0o444
_STAGED_MODE = 0o600
_NO_UNNAMED_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})
"""What opening an unnamed file answers where file system or kernel has none."""
_NO_RESERVATION = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_STRAY_WRITER_SECONDS = 2.0
"""How long a child between fork and exec may hold a copy of our descriptor."""
_PAUSE_SECONDS = 0.002


class StagedInode:
    """A file under construction; leaving its ``with`` block closes it.

    Made by :meth:`anonymous` (has no name, vanishes when closed unless it was linked) or by
    :meth:`open_partial` (has a name, stays when closed, so that a later run goes on with it).

    The life of one: ``write`` until done, ``seal``, ``link``, ``discard``, ``close``. A sealed
    file belongs to root, is read-only, durable, and no descriptor in this system can write it.
    """

    def __init__(self, descriptor: int, directory: Path, path: Path | None, size: int) -> None:
        self._descriptor = descriptor
        self._directory = directory
        self._path = path
        self._kept = False
        self._size = size
        self._reserved = False
        self._sealed = False

    @classmethod
    def anonymous(cls, directory: Path) -> Self:
        """Make an empty file in ``directory`` that has no name.

        Where the file system cannot do that it has a temporary name that closing removes, and
        :func:`cas.fsops.durable.remove_temporaries` after a crash.

        Raises:
            NoSpaceError: No room.
            DeniedError: The process may not write there.
            VaultLockedError: The directory's key is absent.
            StorageError: Any other failed system call.
        """
        with translated("make a file in", directory):
            effect(Effect.WRITE_FILE, directory)
            try:
                flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
                return cls(os.open(directory, flags, _STAGED_MODE), directory, None, 0)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
            path = directory / temporary_name()
            descriptor = _create(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return cls(descriptor, directory, path, 0)

    @classmethod
    def open_partial(cls, path: Path, *, mode: int = _STAGED_MODE) -> Self:
        """Open the partial file ``path`` to go on with it, or begin it.

        Whatever has the name but cannot be a partial file of ours (symbolic link, second hard
        link, other owner) is removed first, unread. One caller at a time, which is the caller's
        to see to.

        Args:
            path: Its name.
            mode: Its permission bits, whatever the umask.

        Raises:
            NoSpaceError: No room.
            DeniedError: The process may not write there.
            VaultLockedError: The directory's key is absent.
            StorageError: Any other failed system call.
        """
        with translated("open", path):
            descriptor = _reopen(path)
            if descriptor is None:
                effect(Effect.UNLINK, path)
                path.unlink(missing_ok=True)
                effect(Effect.WRITE_FILE, path)
                descriptor = _create(path)
            os.fchmod(descriptor, mode)
            size = os.lseek(descriptor, 0, os.SEEK_END)
            staged = cls(descriptor, path.parent, path, size)
            staged._kept = True
            return staged

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return self._size

    @property
    def offset(self) -> int:
        """Where the next write goes: the end of what it holds."""
        return self._size

    def fileno(self) -> int:
        """Its descriptor, for :func:`clone` and :mod:`os`; writable until sealed.

        Raises:
            StorageError: It is closed.
        """
        if self._descriptor < 0:
            message = f"the staged file in {str(self._directory)!r} is closed"
            raise StorageError(message, path=self._directory)
        return self._descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        Raises:
            NoSpaceError: No room; the file may hold a part of ``data``.
            StorageError: Any other failed system call, or it is sealed.
        """
        with translated("write", self._place):
            effect(Effect.WRITE_FILE, self._place)
            try:
                descriptors.write_all(self.fileno(), data)
            finally:
                self._size = os.lseek(self.fileno(), 0, os.SEEK_CUR)

    def reserve(self, size: int) -> bool:
        """Allocate room for ``size`` bytes in all, so that running out shows at once.

        Returns:
            False where the file system cannot do that; nothing is promised then.

        Raises:
            NoSpaceError: There is not that much.
        """
        if size <= self._size:
            return True
        with translated(f"reserve {size} bytes in", self._directory):
            try:
                kernel.reserve(self.fileno(), size)
            except OSError as error:
                if error.errno in _NO_RESERVATION:
                    return False
                raise
        self._reserved = True
        return True

    def clone_from(self, source: int) -> bool:
        """Become a copy of an open file by sharing its blocks; only while empty.

        Returns:
            False where the file system cannot do that; the file is still empty then.
        """
        with translated("clone into", self._place):
            effect(Effect.WRITE_FILE, self._place)
            if self._size or not clone(source, self.fileno()):
                return False
            self._size = os.lseek(self.fileno(), 0, os.SEEK_END)
            return True

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Read what it holds from ``offset``, in chunks of at most 1 MiB."""
        with translated("read", self._place):
            yield from descriptors.read_chunks(self.fileno(), offset)

    def start_writeback(self, offset: int, size: int) -> None:
        """Let the device begin with a range already, so that ``seal`` has less to wait for."""
        # Best effort: what fails here fails again, and then counts, in sync.
        with suppress(OSError):
            kernel.start_writeback(self.fileno(), offset, size)

    def sync(self) -> None:
        """Make the content durable.

        Raises:
            StorageError: It failed. Never call it again then: a second sync may succeed
                although data was lost. Discard the file and write it anew.
        """
        with translated("sync", self._place):
            effect(Effect.FSYNC, self._place)
            os.fsync(self.fileno())

    def restart(self) -> None:
        """Drop the content and begin again."""
        self.truncate(0)

    def truncate(self, size: int) -> None:
        """Drop what lies behind the first ``size`` bytes, of which it has at least as many."""
        with translated("truncate", self._place):
            effect(Effect.WRITE_FILE, self._place)
            os.ftruncate(self.fileno(), size)
            self._size = os.lseek(self.fileno(), size, os.SEEK_SET)

    def seal(self) -> None:
        """Make it final: root's, read-only, durable, and with no writer anywhere. Idempotent.

        Raises:
            InUseError: Another process has it open for writing.
            StorageError: A system call failed; discard it, see :meth:`sync`.
        """
        if self._sealed:
            return
        with translated("seal", self._place):
            descriptor = self.fileno()
            if self._reserved:  # what was reserved beyond the end goes back
                os.ftruncate(descriptor, self._size)
            effect(Effect.ACCESS, self._place)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, _SEALED_MODE)
            self.sync()
            self._descriptor = descriptors.reopen_for_reading(descriptor)
            self._sealed = True
            os.close(descriptor)
            self._prove_no_writer()

    def _prove_no_writer(self) -> None:
        deadline = time.monotonic() + _STRAY_WRITER_SECONDS
        while True:
            try:
                if descriptors.take_lease(self._descriptor):
                    descriptors.drop_lease(self._descriptor)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    message = f"another process has {str(self._place)!r} open for writing"
                    raise InUseError(message, path=self._place) from error
            time.sleep(_PAUSE_SECONDS)

    def link(self, target: Path) -> bool:
        """Give the sealed inode the name ``target``; the name is not durable yet.

        Returns:
            False if the name is taken; whatever has it is untouched.

        Raises:
            StorageError: A system call failed, or it is not sealed.
        """
        if not self._sealed:
            message = f"the staged file {str(self._place)!r} is linked before it is sealed"
            raise StorageError(message, path=self._place)
        with translated("link", target):
            return descriptors.link(self.fileno(), target)

    def discard(self) -> None:
        """Remove the staged name, if there is one; links stay. Idempotent."""
        path, self._path = self._path, None
        if path is not None:
            with translated("remove", path):
                effect(Effect.UNLINK, path)
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it. A partial file keeps its name, all others vanish. Idempotent."""
        if self._descriptor < 0:
            return
        try:
            if not self._kept:
                self.discard()
        finally:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _place(self) -> Path:
        return self._path or self._directory


def _create(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, _STAGED_MODE)


def _reopen(path: Path) -> int | None:
    """Open a partial file that an earlier run left; None if there is none of ours."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    if _is_ours(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _is_ours(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid in (0, os.geteuid())
    )
