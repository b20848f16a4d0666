"""Locks between threads and processes that no crash leaves behind.

``flock`` on a file that is never removed: the kernel drops the lock with the last descriptor of
its holder. Each acquisition opens the file anew, so that two threads of one process exclude each
other as two processes do. Locks are advisory, not re-entrant and not fair: shared holders that
follow one another can keep an exclusive one waiting.

A process that forks without exec hands its locks on to the child until the parent releases them.
"""

__all__ = ["FileLock", "is_locked", "lock"]

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cas.errors import LockTimeoutError
from cas.fsops.durable import make_directory
from cas.fsops.processes import process_name
from cas.fsops.translation import translated
from cas.model.cancellation import Cancellation, current_operation

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


class FileLock:
    """A lock that a file stands for; leaving its ``with`` block releases it.

    One object holds the lock at most once. Any number of objects, threads and processes may use
    the same file.

    Args:
        path: The lock file; made with mode 0600, its directory with 0700, when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(
        self,
        *,
        shared: bool = False,
        timeout_seconds: float | None = None,
        cancel: Cancellation | None = None,
    ) -> Self:
        """Take the lock, waiting for it if necessary.

        Args:
            shared: Together with other shared holders, instead of alone.
            timeout_seconds: How long to wait; 0 asks once, None waits for ever.
            cancel: Ends the wait early.

        Raises:
            LockTimeoutError: Somebody else held it until the end of the wait.
            InterruptedOperationError: ``cancel`` was set, or the flag of the operation that this
                belongs to.
            DeniedError: The process may not open the file.
            StorageError: A system call failed.
            RuntimeError: This very object holds the lock already.
        """
        if self._descriptor is not None:
            message = f"the lock {str(self._path)!r} is held by this very object"
            raise RuntimeError(message)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        operation = current_operation()
        if operation is not None and operation.is_set():
            operation = None  # whoever needs the lock now undoes what was begun
        pause = _FIRST_PAUSE_SECONDS
        while not self._try(shared=shared):
            for flag in (cancel, operation):
                if flag is not None:
                    flag.check()
            if deadline is not None and time.monotonic() >= deadline:
                raise self._timeout_error(timeout_seconds)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return self

    def _try(self, *, shared: bool) -> bool:
        with translated("lock", self._path):
            descriptor = self._open()
            taken = False
            try:
                taken = _flock(descriptor, shared=shared) and self._is_current(descriptor)
            finally:
                if not taken:
                    os.close(descriptor)
        if taken:
            self._descriptor = descriptor
        return taken

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            make_directory(self._path.parent, mode=0o700, parents=True)
            return os.open(self._path, flags, 0o600)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the name still is the file that was locked, should somebody have cleaned up."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _timeout_error(self, timeout_seconds: float | None) -> LockTimeoutError:
        holders = ", ".join(f"{pid} ({process_name(pid)})" for pid in self._holders())
        message = (
            f"cannot lock {str(self._path)!r} within {timeout_seconds} s: held by process "
            f"{holders or 'unknown'}; try again when it is done"
        )
        return LockTimeoutError(message, path=self._path, holders=holders)

    def _holders(self) -> list[int]:
        with translated("inspect", self._path):
            try:
                status = self._path.stat()
            except FileNotFoundError:
                return []  # its holder has just removed it
            table = Path("/proc/locks").read_text()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        rows = (line.split() for line in table.splitlines())
        return sorted({int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == device})

    def release(self) -> None:
        """Give the lock back; no effect when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Explicitly: a forked child may share the open file and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def __enter__(self) -> Self:
        if self._descriptor is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _flock(descriptor: int, *, shared: bool) -> bool:
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def lock(
    path: Path,
    *,
    shared: bool = False,
    timeout_seconds: float | None = None,
    cancel: Cancellation | None = None,
) -> Iterator[None]:
    """Hold the lock of ``path`` for a block; see :meth:`FileLock.acquire`."""
    held = FileLock(path)
    held.acquire(shared=shared, timeout_seconds=timeout_seconds, cancel=cancel)
    try:
        yield
    finally:
        held.release()


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds a lock alone, at this moment; makes no file.

    Raises:
        DeniedError: The process may not open the lock file.
        StorageError: A system call failed.
    """
    with translated("look at the lock", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _flock(descriptor, shared=True)
        finally:
            os.close(descriptor)
