"""Taking over somebody else's file instead of copying it; public through ``cas.fsops.inode``.

What makes that safe is a kernel lease: it proves at the start that no process has the file open
for writing, and tells at the end that none tried. Where the proof is not to be had the file is
not taken, and the caller copies.
"""

__all__ = ["ExclusiveInode", "has_writer"]

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cas.errors import StorageError
from cas.fsops import descriptors
from cas.fsops.effects import Effect, effect
from cas.fsops.encryption import policy_identifier
from cas.fsops.translation import translated

_log = logging.getLogger(__name__)
_SEALED_MODE = 0o444
_PERMISSION_BITS = 0o7777
_NOT_OPENABLE = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENXIO: "it is a socket or a device without a driver",
}


class ExclusiveInode:
    """A file that is proven to have no writer and no other name; made by :meth:`take`.

    Leaving its ``with`` block closes it. The life of one: read :meth:`chunks`, :meth:`seal`, ask
    :meth:`unchanged`, :meth:`link`, :meth:`remove_source`; when the content is not what it should
    be, :meth:`restore` instead. Until ``link`` the owner's file keeps its name.

    A crash between ``seal`` and ``remove_source`` leaves the source in place, root's and
    read-only; taking it again goes on from there.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._original = os.fstat(descriptor)
        self._known = self._original
        self._linked = False

    @classmethod
    def take(cls, path: Path, target_directory: Path) -> Self | None:
        """Take over ``path`` if it can be proven safe to; nothing is changed by asking.

        Args:
            path: The file.
            target_directory: Where it will be linked.

        Returns:
            None if the file cannot be taken over (it is a symbolic link or not a regular file,
            has other names or a writer, is immutable, or lies on another file system, under
            another mount or another encryption key): copy it then.

        Raises:
            SourceNotFoundError: There is no such file.
            DeniedError: The process may not read it.
            StorageError: Any other failed system call.
        """
        with translated("open", path, source=True):
            descriptor, obstacle = _open(path)
            taken = None
            try:
                obstacle = obstacle or _obstacle(descriptor, target_directory)
                if obstacle is None:
                    taken = cls(path, descriptor)
            finally:
                if taken is None and descriptor >= 0:
                    os.close(descriptor)
        if obstacle is not None:
            _log.info("file is copied, not taken over path=%s reason=%s", path, obstacle)
        return taken

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return self._known.st_size

    def fileno(self) -> int:
        """Its descriptor, open to read.

        Raises:
            StorageError: It is closed.
        """
        if self._descriptor < 0:
            message = f"the file taken over from {str(self._path)!r} is closed"
            raise StorageError(message, path=self._path)
        return self._descriptor

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Read it from ``offset``, in chunks of at most 1 MiB."""
        with translated("read", self._path):
            yield from descriptors.read_chunks(self.fileno(), offset)

    def unchanged(self) -> bool:
        """Whether what was read since :meth:`take` still is what the inode holds.

        False as soon as anybody tried to open it for writing, or changed owner, mode or links.
        """
        with translated("inspect", self._path):
            if not descriptors.holds_lease(self.fileno()):
                return False
            return _fingerprint(os.fstat(self.fileno())) == _fingerprint(self._known)

    def has_waiting_writer(self) -> bool:
        """Whether somebody asked to write it since :meth:`take` and waits until it is closed.

        Also possible after it was linked: the waiting one opened the old name, and could then
        write into what is stored.
        """
        with translated("inspect", self._path):
            return not descriptors.holds_lease(self.fileno())

    def seal(self, *, user: int = 0, group: int = 0, mode: int = _SEALED_MODE) -> bool:
        """Make it somebody's for good, read-only and durable.

        Args:
            user: Its owner from now on; root unless said otherwise.
            group: Its group.
            mode: Permission bits, none of them to write.

        Returns:
            False if it had changed before; it is left as it is then, and the caller copies.

        Raises:
            StorageError: A system call failed; :meth:`restore` gives owner and mode back.
        """
        if not self.unchanged():
            return False
        with translated("seal", self._path):
            descriptor = self.fileno()
            effect(Effect.ACCESS, self._path)
            os.fchown(descriptor, user, group)
            os.fchmod(descriptor, mode)
            effect(Effect.FSYNC, self._path)
            os.fsync(descriptor)
            sealed = os.fstat(descriptor)
        # Only what this call changed itself may differ.
        same = (sealed.st_size, sealed.st_mtime_ns, sealed.st_nlink) == (
            self._known.st_size,
            self._known.st_mtime_ns,
            self._known.st_nlink,
        )
        self._known = sealed
        return same and self.unchanged()

    def link(self, target: Path) -> bool:
        """Give the inode the name ``target``; the name is not durable yet.

        Call it when :meth:`seal` and :meth:`unchanged` said yes.

        Returns:
            False if the name is taken; whatever has it is untouched.

        Raises:
            StorageError: A system call failed.
        """
        with translated("link", target):
            linked = descriptors.link(self.fileno(), target)
            if linked:
                self._linked = True
                self._known = os.fstat(self.fileno())
        return linked

    def remove_source(self) -> bool:
        """Remove the name it was taken from, durably, if that still is this inode.

        Returns:
            Whether it was removed; False also when it was gone or names another file by now.

        Raises:
            StorageError: A system call failed.
        """
        with translated("remove", self._path):
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return self._remove_from(directory)
            finally:
                os.close(directory)

    def _remove_from(self, directory: int) -> bool:
        try:
            named = os.stat(self._path.name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not os.path.samestat(named, os.fstat(self.fileno())):
            return False
        effect(Effect.UNLINK, self._path)
        os.unlink(self._path.name, dir_fd=directory)
        effect(Effect.FSYNC, self._path.parent)
        os.fsync(directory)
        return True

    def restore(self) -> None:
        """Give owner and mode back to what they were when it was taken. Idempotent.

        No effect once it is linked: the inode is shared then, and must stay read-only.

        Raises:
            StorageError: A system call failed.
        """
        if self._linked:
            return
        with translated("restore the owner of", self._path):
            effect(Effect.ACCESS, self._path)
            os.fchown(self.fileno(), self._original.st_uid, self._original.st_gid)
            os.fchmod(self.fileno(), self._original.st_mode & _PERMISSION_BITS)
            self._known = os.fstat(self.fileno())

    def close(self) -> None:
        """Close it, which ends the lease. Idempotent; restores nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def has_writer(path: Path) -> bool:
    """Whether anybody has a regular file open for writing; False where that cannot be told.

    Raises:
        SourceNotFoundError: There is no such file.
        StorageError: A system call failed.
    """
    with translated("open", path, source=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if descriptors.take_lease(descriptor):
                descriptors.drop_lease(descriptor)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _open(path: Path) -> tuple[int, str | None]:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), None
    except OSError as error:
        if error.errno in _NOT_OPENABLE:
            return -1, _NOT_OPENABLE[error.errno]
        raise


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _obstacle(descriptor: int, target_directory: Path) -> str | None:
    """Say why a file cannot be taken over; None, and the lease, if it can."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} names"
    if descriptors.is_immutable(descriptor):
        return "it is immutable"
    reason = _distance(descriptor, target_directory)
    if reason is not None:
        return reason
    try:
        if not descriptors.take_lease(descriptor):
            return "its file system has no leases"
    except BlockingIOError:
        return "somebody has it open for writing"
    # A second name made between the first look and the lease would not have broken the lease.
    return None if os.fstat(descriptor).st_nlink == 1 else "it was given a second name"


def _distance(descriptor: int, target_directory: Path) -> str | None:
    directory = descriptors.open_directory(target_directory)
    try:
        if os.fstat(directory).st_dev != os.fstat(descriptor).st_dev:
            return "it lies on another file system"
        if descriptors.mount_id(directory) != descriptors.mount_id(descriptor):
            return "it lies under another mount"
        if policy_identifier(directory) != policy_identifier(descriptor):
            return "it lies under another encryption key"
    finally:
        os.close(directory)
    return None
