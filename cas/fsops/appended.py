"""A file of lines to which durable lines are added.

What was added is on the device when the call returns. A line that a power cut left half is cut off
when the file is opened, so that every line is whole; what the lines mean is the caller's.
"""

__all__ = ["AppendedFile", "read_lines"]

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cas.fsops.descriptors import read_chunks, write_all
from cas.fsops.durable import sync_directory
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated
from cas.model.limits import CHUNK_BYTES

_MODE = 0o600


class AppendedFile:
    """One such file, opened; leaving its ``with`` block closes it. One writer at a time.

    Args:
        path: Made if it is missing; its directory exists.

    Raises:
        NoSpaceError: No room.
        DeniedError: The process may not write there.
        StorageError: Any other failed system call; also if it is a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with translated("open", path):
            effect(Effect.WRITE_FILE, path)
            self._descriptor = os.open(path, flags, _MODE)
            try:
                self._cut_half_line()
            except BaseException:
                os.close(self._descriptor)
                raise
        sync_directory(path.parent)

    def append(self, line: bytes) -> None:
        """Add a line, without its end; durable when it returns.

        Raises:
            NoSpaceError: No room; nothing that counts was added.
            StorageError: Any other failed system call.
        """
        with translated("append to", self._path):
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            effect(Effect.WRITE_FILE, self._path)
            try:
                write_all(self._descriptor, line + b"\n")
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise
            effect(Effect.FSYNC, self._path)
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut_half_line(self) -> None:
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - CHUNK_BYTES)
            last = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end < size:
            effect(Effect.WRITE_FILE, self._path)
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)


def read_lines(path: Path, limit: int) -> Iterator[bytes]:
    """Read the whole lines of such a file, without their ends; a missing file has none.

    Args:
        path: The file.
        limit: Lines longer than this many bytes are left out.

    Raises:
        StorageError: A system call failed; also if it is a symbolic link.
    """
    with translated("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            yield from _lines(read_chunks(descriptor), limit)
        finally:
            os.close(descriptor)


def _lines(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    rest, skipping = b"", False
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if not skipping and len(line) <= limit:
                yield line
            skipping = False
        if len(rest) > limit:
            rest, skipping = b"", True
