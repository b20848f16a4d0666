"""Whether a directory is encrypted by fscrypt, and whether its key is there.

Asks the kernel by ioctl and needs no tool. It reads state only: policies and keys are made
elsewhere.
"""

__all__ = ["EncryptionState", "encryption_state", "policy_identifier"]

import errno
import fcntl
import os
import struct
from enum import StrEnum
from pathlib import Path

from cas.fsops.translation import translated

_GET_POLICY_EX = 0xC0096616
_GET_KEY_STATUS = 0xC080661A
_POLICY_SIZE = struct.Struct("=Q")
_POLICY_BYTES = 24
_VERSION_1 = 0
_KEY_SPECIFIER = struct.Struct("=II32s")
_BY_DESCRIPTOR = 1
_BY_IDENTIFIER = 2
_KEY_STATUS_BYTES = 128
_STATUS = struct.Struct("=I")
_STATUS_OFFSET = 64
_KEY_PRESENT = 2
_NOT_ENCRYPTED = frozenset(
    {errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS}
)
"""No policy here, or a file system that knows no policies."""


class EncryptionState(StrEnum):
    """What may be written into a directory."""

    PLAIN = "plain"
    ENCRYPTED_UNLOCKED = "encrypted-unlocked"
    ENCRYPTED_LOCKED = "encrypted-locked"
    """Also while a lock is under way: new files are refused then already."""


def encryption_state(directory: Path) -> EncryptionState:
    """Ask the kernel about an existing directory. Changes nothing.

    Raises:
        SourceNotFoundError: It does not exist.
        DeniedError: The process may not open it.
        StorageError: Any other failed system call.
    """
    with translated("read the encryption state of", directory, source=True):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            policy = policy_identifier(descriptor)
            if policy is None:
                return EncryptionState.PLAIN
            return _key_state(descriptor, policy)
        finally:
            os.close(descriptor)


def policy_identifier(descriptor: int) -> bytes | None:
    """The key that an open file or directory is encrypted under; None when it is plain.

    Sixteen bytes for today's policies, eight for those of version 1. Raises ``OSError``.
    """
    buffer = bytearray(_POLICY_SIZE.pack(_POLICY_BYTES) + bytes(_POLICY_BYTES))
    try:
        fcntl.ioctl(descriptor, _GET_POLICY_EX, buffer, True)  # noqa: FBT003 - positional only
    except OSError as error:
        if error.errno in _NOT_ENCRYPTED:
            return None
        raise
    policy = buffer[_POLICY_SIZE.size :]
    return bytes(policy[4:12] if policy[0] == _VERSION_1 else policy[8:24])


def _key_state(descriptor: int, identifier: bytes) -> EncryptionState:
    kind = _BY_IDENTIFIER if len(identifier) == 16 else _BY_DESCRIPTOR  # noqa: PLR2004
    buffer = bytearray(_KEY_SPECIFIER.pack(kind, 0, identifier)).ljust(_KEY_STATUS_BYTES, b"\0")
    fcntl.ioctl(descriptor, _GET_KEY_STATUS, buffer, True)  # noqa: FBT003 - positional only
    (status,) = _STATUS.unpack_from(buffer, _STATUS_OFFSET)
    if status == _KEY_PRESENT:
        return EncryptionState.ENCRYPTED_UNLOCKED
    return EncryptionState.ENCRYPTED_LOCKED
