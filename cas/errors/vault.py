"""States of the vault that forbid writing: exit status 7, FAILED_PRECONDITION."""

__all__ = [
    "EncryptionUnsupportedError",
    "KeyMismatchError",
    "PcrMismatchError",
    "SealedKeyError",
    "VaultError",
    "VaultLockedError",
    "VaultNotEncryptedError",
]

from cas.errors.base import CasError


class VaultError(CasError):
    """The vault's state forbids writing."""

    reference = "vault"
    kind = "vault"
    exit_code = 7
    grpc_status = "FAILED_PRECONDITION"


class VaultLockedError(VaultError):
    """The vault is encrypted and its key is not loaded."""

    reference = "vault-locked"


class VaultNotEncryptedError(VaultError):
    """Encryption is required and the vault is plain."""

    reference = "vault-not-encrypted"


class EncryptionUnsupportedError(VaultError):
    """The file system, or the kernel, cannot encrypt directories."""

    reference = "encryption-unsupported"


class PcrMismatchError(VaultError):
    """The TPM keeps the key back: the machine was not started as when it was sealed."""

    reference = "pcr-mismatch"


class KeyMismatchError(VaultError):
    """A key, key file or passphrase that was given is not the vault's."""

    reference = "key-mismatch"


class SealedKeyError(VaultError):
    """A sealed key is damaged, or was sealed by another keeper."""

    reference = "sealed-key-unusable"
