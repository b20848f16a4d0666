"""Encrypted directories of the kernel: their policies, and whether they can be used.

fscrypt policies by ioctl, without a tool; ext4 and f2fs have them. The kernel's keys are in
:mod:`cas.fsops.encryption_keys`; where a key comes from and what the directories mean is other
people's knowledge.

Source: Documentation/filesystems/fscrypt.rst of Linux; include/uapi/linux/fscrypt.h.
"""

__all__ = [
    "EncryptionPolicy",
    "EncryptionState",
    "encryption_state",
    "policy_identifier",
    "read_policy",
    "set_policy",
    "supports_encryption",
]

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cas.errors import AlreadyExistsError, ConflictError, EncryptionUnsupportedError
from cas.fsops import descriptors
from cas.fsops.effects import Effect, effect
from cas.fsops.encryption_keys import KeyStatus, key_status_of
from cas.fsops.translation import storage_error, translated

_GET_POLICY_EX = 0xC0096616
_SET_POLICY = 0x800C6613
_POLICY_SIZE = struct.Struct("=Q")
_POLICY_BYTES = 24
_POLICY_V2 = struct.Struct("=BBBB4s16s")
_VERSION_1 = 0
_VERSION_2 = 2
_AES_256_XTS = 1
_AES_256_CTS = 4
_PAD_32 = 3
_PADDING_MASK = 3
_MODES = {
    1: "aes-256-xts",
    4: "aes-256-cts",
    5: "aes-128-cbc",
    6: "aes-128-cts",
    7: "sm4-xts",
    8: "sm4-cts",
    9: "adiantum",
    10: "aes-256-hctr2",
}
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
"""A file system that knows no policies, or has the feature switched off."""


class EncryptionState(StrEnum):
    """What may be written into a directory."""

    PLAIN = "plain"
    ENCRYPTED_UNLOCKED = "encrypted-unlocked"
    ENCRYPTED_LOCKED = "encrypted-locked"
    """Also while a lock is under way: new files are refused then already."""


@dataclass(frozen=True, slots=True)
class EncryptionPolicy:
    """How a directory is encrypted.

    Args:
        version: 1 or 2.
        contents: Cipher of the contents, such as ``aes-256-xts``.
        names: Cipher of the names.
        padding: Bytes that the length of a name is rounded up to.
        identifier: Which key: sixteen bytes, eight for version 1.
    """

    version: int
    contents: str
    names: str
    padding: int
    identifier: bytes


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
            if key_status_of(descriptor, policy) is KeyStatus.PRESENT:
                return EncryptionState.ENCRYPTED_UNLOCKED
            return EncryptionState.ENCRYPTED_LOCKED
        finally:
            os.close(descriptor)


def policy_identifier(descriptor: int) -> bytes | None:
    """The key that an open file or directory is encrypted under; None when it is plain.

    Sixteen bytes for today's policies, eight for those of version 1. Raises ``OSError``.
    """
    policy = _get_policy(descriptor)
    return None if policy is None else policy.identifier


def read_policy(directory: Path) -> EncryptionPolicy | None:
    """Tell how an existing directory is encrypted, locked or not; None when it is plain.

    Raises:
        SourceNotFoundError: It does not exist.
        DeniedError: The process may not open it.
        StorageError: Any other failed system call.
    """
    with translated("read the encryption policy of", directory, source=True):
        descriptor = descriptors.open_directory(directory)
        try:
            return _get_policy(descriptor)
        finally:
            os.close(descriptor)


def _get_policy(descriptor: int) -> EncryptionPolicy | None:
    try:
        raw = _ask_policy(descriptor)
    except OSError as error:
        if error.errno == errno.ENODATA or error.errno in _UNSUPPORTED:
            return None
        raise
    contents, names, flags = raw[1:4]
    is_first = raw[0] == _VERSION_1
    return EncryptionPolicy(
        version=1 if is_first else raw[0],
        contents=_MODES.get(contents, f"mode-{contents}"),
        names=_MODES.get(names, f"mode-{names}"),
        padding=4 << (flags & _PADDING_MASK),
        identifier=raw[4:12] if is_first else raw[8:24],
    )


def _ask_policy(descriptor: int) -> bytes:
    buffer = bytearray(_POLICY_SIZE.pack(_POLICY_BYTES) + bytes(_POLICY_BYTES))
    fcntl.ioctl(descriptor, _GET_POLICY_EX, buffer, True)  # noqa: FBT003 - positional only
    return bytes(buffer[_POLICY_SIZE.size :])


def supports_encryption(directory: Path) -> bool:
    """Tell whether directories of this file system can be encrypted.

    Raises:
        SourceNotFoundError: ``directory`` does not exist.
        DeniedError: The process may not open it.
        StorageError: Any other failed system call.
    """
    with translated("read the encryption policy of", directory, source=True):
        descriptor = descriptors.open_directory(directory)
        try:
            _ask_policy(descriptor)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            if error.errno != errno.ENODATA:
                raise
        finally:
            os.close(descriptor)
    return True


def set_policy(directory: Path, identifier: bytes) -> None:
    """Encrypt an empty directory from now on, durably.

    Contents by AES-256-XTS, names by AES-256-CTS padded to 32 bytes, policy version 2. Done in one
    step; a directory that has this very policy is success.

    Args:
        directory: Empty, on ext4 or f2fs, not the root of the file system.
        identifier: Of a key that the kernel holds.

    Raises:
        EncryptionUnsupportedError: The file system, or the kernel, cannot encrypt it.
        AlreadyExistsError: It is encrypted by another policy.
        ConflictError: It is not empty.
        DeniedError: The process may not do this.
        VaultLockedError: The kernel does not hold the key.
        StorageError: Any other failed system call.
    """
    policy = _POLICY_V2.pack(_VERSION_2, _AES_256_XTS, _AES_256_CTS, _PAD_32, b"", identifier)
    descriptor = -1
    try:
        descriptor = descriptors.open_directory(directory)
        effect(Effect.ENCRYPT, directory)
        fcntl.ioctl(descriptor, _SET_POLICY, policy)
        effect(Effect.FSYNC, directory)
        os.fsync(descriptor)
    except OSError as error:
        raise _refusal(directory, error) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _refusal(directory: Path, cause: OSError) -> Exception:
    if cause.errno in _UNSUPPORTED:
        return EncryptionUnsupportedError(
            f"cannot encrypt {str(directory)!r}: its file system has no encryption; use ext4 or "
            "f2fs and switch the feature on, for ext4 with `tune2fs -O encrypt DEVICE`",
            path=directory,
        )
    if cause.errno == errno.ENOTEMPTY:
        return ConflictError(
            f"cannot encrypt {str(directory)!r}: it is not empty; move what it holds away",
            path=directory,
        )
    if cause.errno == errno.EEXIST:
        return AlreadyExistsError(
            f"cannot encrypt {str(directory)!r}: it is encrypted under another key or policy",
            path=directory,
        )
    return storage_error("encrypt", directory, cause)
