"""The keys that the kernel holds for one file system: added, looked at, removed.

A key belongs to the file system, not to a process or a session, and goes with its unmount.

Source: Documentation/filesystems/fscrypt.rst of Linux; include/uapi/linux/fscrypt.h.
"""

__all__ = ["KeyStatus", "add_key", "key_status", "key_status_of", "remove_key"]

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from cas.errors import EncryptionUnsupportedError
from cas.fsops import descriptors
from cas.fsops.effects import Effect, effect
from cas.fsops.secrets import Secret
from cas.fsops.translation import storage_error, translated

_ADD_KEY = 0xC0506617
_REMOVE_KEY_ALL_USERS = 0xC0406619
_GET_KEY_STATUS = 0xC080661A
_SPECIFIER = struct.Struct("=II32s")
_BY_DESCRIPTOR = 1
_BY_IDENTIFIER = 2
_IDENTIFIER_BYTES = 16
_IDENTIFIER_OFFSET = 8
_ADD_HEADER = struct.Struct("=II32sII32s")
_STATUS_BYTES = 128
_REMOVE_BYTES = 64
_NUMBER = struct.Struct("=I")
_STATUS_OFFSET = 64
_REMOVED_OFFSET = 40
_FILES_BUSY = 1
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})


class KeyStatus(IntEnum):
    """What the kernel says of a key; the numbers are the kernel's."""

    ABSENT = 1
    PRESENT = 2
    INCOMPLETELY_REMOVED = 3
    """The key is gone, and files that were open then are still readable."""


@contextmanager
def _opened(place: Path, action: str) -> Iterator[int]:
    with translated(action, place, source=True):
        descriptor = descriptors.open_directory(place)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _specifier(identifier: bytes) -> bytearray:
    kind = _BY_IDENTIFIER if len(identifier) == _IDENTIFIER_BYTES else _BY_DESCRIPTOR
    return bytearray(_SPECIFIER.pack(kind, 0, identifier))


def key_status_of(descriptor: int, identifier: bytes) -> KeyStatus:
    """Ask about a key through any open file of its file system. Raises ``OSError``."""
    buffer = _specifier(identifier).ljust(_STATUS_BYTES, b"\0")
    fcntl.ioctl(descriptor, _GET_KEY_STATUS, buffer, True)  # noqa: FBT003 - positional only
    (status,) = _NUMBER.unpack_from(buffer, _STATUS_OFFSET)
    return KeyStatus(status)


def key_status(place: Path, identifier: bytes) -> KeyStatus:
    """Ask whether the kernel holds a key. Changes nothing.

    Args:
        place: Any directory of the file system.
        identifier: Of the key.

    Raises:
        SourceNotFoundError: ``place`` does not exist.
        DeniedError: The process may not open it.
        StorageError: The file system has no encryption, or another system call failed.
    """
    with _opened(place, "ask for a key of") as descriptor:
        return key_status_of(descriptor, identifier)


def add_key(place: Path, key: Secret) -> bytes:
    """Give the kernel a key, which opens every directory of the file system under it. Idempotent.

    Args:
        place: Any directory of the file system.
        key: 64 bytes; kernels from 5.16 on take 32 as well.

    Returns:
        The key's identifier, sixteen bytes.

    Raises:
        EncryptionUnsupportedError: The file system has no encryption.
        SourceNotFoundError: ``place`` does not exist.
        DeniedError: The process may not do this.
        StorageError: Any other failed system call.
    """
    try:
        descriptor = descriptors.open_directory(place)
        try:
            effect(Effect.KEY, place)
            return _add(descriptor, key)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise EncryptionUnsupportedError(
                f"the file system of {str(place)!r} has no encryption; use ext4 or f2fs and switch "
                "the feature on, for ext4 with `tune2fs -O encrypt DEVICE`",
                path=place,
            ) from error
        raise storage_error("add a key to", place, error, source=True) from error


def _add(descriptor: int, key: Secret) -> bytes:
    # A page, since Python copies shorter arguments to its stack on the way.
    with Secret(mmap.PAGESIZE) as argument:
        view = argument.view
        _ADD_HEADER.pack_into(view, 0, _BY_IDENTIFIER, 0, b"", key.size, 0, b"")
        view[_ADD_HEADER.size : _ADD_HEADER.size + key.size] = key.view
        fcntl.ioctl(descriptor, _ADD_KEY, view, True)  # noqa: FBT003 - positional only
        return bytes(view[_IDENTIFIER_OFFSET : _IDENTIFIER_OFFSET + _IDENTIFIER_BYTES])


def remove_key(place: Path, identifier: bytes) -> bool:
    """Take a key from the kernel, whoever added it, and let it forget what it has read. Idempotent.

    New files are refused from then on. Files that are in use stay readable, so that this has to
    be called again when they are not.

    Args:
        place: A directory of the file system that is not encrypted under the key: it is open
            meanwhile, and would be found in use.
        identifier: Of the key.

    Returns:
        Whether nothing is readable any more.

    Raises:
        SourceNotFoundError: ``place`` does not exist.
        DeniedError: The process is not root.
        StorageError: Any other failed system call.
    """
    argument = _specifier(identifier).ljust(_REMOVE_BYTES, b"\0")
    with _opened(place, "remove a key from") as descriptor:
        effect(Effect.KEY, place)
        try:
            fcntl.ioctl(descriptor, _REMOVE_KEY_ALL_USERS, argument, True)  # noqa: FBT003 - positional only
        except OSError as error:
            if error.errno != errno.ENOKEY:
                raise
            return True
    (flags,) = _NUMBER.unpack_from(argument, _REMOVED_OFFSET)
    return not flags & _FILES_BUSY
