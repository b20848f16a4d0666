"""Key material in memory that is neither swapped, dumped, inherited nor left behind.

A :class:`Secret` is a page of its own, filled and read in place: whoever turns it into ``bytes``
makes a copy that nobody wipes. What the kernel, a library or a TPM copies out of it is their
business; :func:`lock_process_memory` covers those copies for a process that handles keys and little
else.
"""

__all__ = ["Secret", "lock_process_memory"]

import mmap
import os
import resource
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cas.errors import SizeMismatchError
from cas.fsops import kernel
from cas.fsops.translation import translated

_MADV_WIPEONFORK = 18
_RANDOM = Path("/dev/urandom")


class Secret:
    """Bytes that exist until :meth:`close`; use it as a context manager.

    Args:
        size: Number of bytes, all zero at first.

    Raises:
        DeniedError: The process may not lock memory.
        StorageError: No memory is left to lock.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # Whole pages of its own: locking and advice work on pages.
        self._memory = mmap.mmap(-1, max(size, mmap.PAGESIZE), mmap.MAP_PRIVATE | mmap.MAP_ANON)
        with translated("lock in memory", "a key"):
            kernel.lock_memory(self._memory)
            self._memory.madvise(mmap.MADV_DONTDUMP)
            self._memory.madvise(_MADV_WIPEONFORK)
        self._view: memoryview | None = memoryview(self._memory)

    @classmethod
    def random(cls, size: int) -> Self:
        """Make one of the kernel's random bytes.

        Raises:
            StorageError: The kernel gave none.
        """
        descriptor = os.open(_RANDOM, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls.read_from(descriptor, size, what=str(_RANDOM), to_end=False)
        finally:
            os.close(descriptor)

    @classmethod
    def read_from(cls, descriptor: int, size: int, *, what: str, to_end: bool = True) -> Self:
        """Read one from a file or pipe, without a copy in between.

        Args:
            descriptor: What to read.
            size: How many bytes.
            what: The source, for messages.
            to_end: Whether anything after them is an error.

        Raises:
            SizeMismatchError: There are fewer bytes, or more with ``to_end``.
            StorageError: A read failed.
        """
        secret = cls(size + 1)
        try:
            _check_size(secret._fill(descriptor, size + to_end, what), size, what)
        except BaseException:
            secret.close()
            raise
        secret.size = size
        return secret

    def _fill(self, descriptor: int, size: int, what: str) -> int:
        done = 0
        with translated("read", what):
            while done < size:
                count = os.readv(descriptor, [self._open_view()[done:size]])
                if not count:
                    break
                done += count
        return done

    @property
    def view(self) -> memoryview:
        """The bytes themselves, writable; valid until :meth:`close`."""
        return self._open_view()[: self.size]

    def _open_view(self) -> memoryview:
        if self._view is None:
            raise ValueError("the secret was wiped")
        return self._view

    def close(self) -> None:
        """Overwrite the bytes and give the memory back. Idempotent."""
        if self._view is None:
            return
        self._view[:] = bytes(len(self._view))
        self._view.release()
        self._view = None
        # A view that somebody still holds sees zeros, and keeps the page until it goes.
        with suppress(BufferError):
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_view"):
            self.close()

    def __repr__(self) -> str:
        return f"<Secret of {self.size} bytes>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def _check_size(found: int, size: int, what: str) -> None:
    if found != size:
        raise SizeMismatchError(
            f"{what} has {'more' if found > size else found} bytes; a key has exactly {size}, "
            "without line end or encoding",
            expected=size,
            actual=found,
        )


def lock_process_memory() -> None:
    """Keep all memory of this process, present and future, from being swapped or dumped.

    For a process that handles a key and ends: libraries copy keys where nobody can wipe them.
    Idempotent.

    Raises:
        DeniedError: The process may not do this.
        StorageError: Another limit forbids it.
    """
    with translated("lock in memory", "the process"):
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]  # what it starts may want cores
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        kernel.forbid_dumps()
        kernel.lock_all_memory()
