"""A vault's key and what follows from it.

The key that is sealed and escrowed has 32 random bytes. What the kernel gets is derived from it, 64
bytes and another for each vault: kernels before 5.16 take no shorter one for AES-256-XTS, and
vaults that share a key file open and lock one by one.

Source: RFC 5869 (HKDF); Documentation/filesystems/fscrypt.rst of Linux, "Key hierarchy".
"""

__all__ = ["KEY_BYTES", "identifier_of", "key_digest", "master_key", "new_key"]

import hashlib

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cas.fsops.secrets import Secret
from cas.model.digest import Digest
from cas.model.vault_settings import VaultName

KEY_BYTES = 32
_MASTER_BYTES = 64
_MASTER_INFO = b"eve-cas fscrypt master key: "
_IDENTIFIER_BYTES = 16
_IDENTIFIER_INFO = b"fscrypt\0\x01"


def new_key() -> Secret:
    """Make a key from the kernel's random numbers."""
    return Secret.random(KEY_BYTES)


def key_digest(key: Secret) -> Digest:
    """The sha256 by which a key is recognised; says nothing about it, as it is random."""
    return Digest(hashlib.sha256(key.view).hexdigest())


def master_key(key: Secret, name: VaultName) -> Secret:
    """Derive what the kernel gets for one vault."""
    master = Secret(_MASTER_BYTES)
    _hkdf(_MASTER_BYTES, _MASTER_INFO + name.encode()).derive_into(key.view, master.view)
    return master


def identifier_of(master: Secret) -> bytes:
    """The name that the kernel will give a master key, without giving it to the kernel."""
    return _hkdf(_IDENTIFIER_BYTES, _IDENTIFIER_INFO).derive(master.view)


def _hkdf(length: int, info: bytes) -> HKDF:
    return HKDF(algorithm=SHA512(), length=length, salt=None, info=info)
