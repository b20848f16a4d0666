"""A key encrypted under a passphrase, for development; :mod:`cas.vault.provider`."""

__all__ = ["AskPassphrase", "PassphraseProvider"]

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cas.errors import KeyMismatchError
from cas.fsops.secrets import Secret
from cas.model.vault_settings import ProviderName
from cas.vault.key import KEY_BYTES, new_key
from cas.vault.provider import foreign_sealing
from cas.vault.sealed_key import PassphraseSealing, Sealing

AskPassphrase = Callable[[], Secret]
"""Gives the passphrase, at least one byte; whoever asked closes it."""

_SALT_BYTES = 16
_NONCE_BYTES = 12
_COST = 2**16
"""With blocks of 1 KiB: 64 MiB and a quarter of a second on a desktop."""
_BLOCK_SIZE = 8
_PURPOSE = b"eve-cas vault key"


class PassphraseProvider:
    """Wraps keys under what a person knows.

    Args:
        ask: Gives the passphrase.
    """

    name = ProviderName.PASSPHRASE

    def __init__(self, ask: AskPassphrase) -> None:
        self._ask = ask

    def new_key(self) -> Secret:
        """A random key."""
        return new_key()

    def seal(self, key: Secret) -> PassphraseSealing:
        """Encrypt the key under the passphrase."""
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        with self._stretched(salt, _COST) as wrapping:
            wrapped = AESGCM(wrapping.view).encrypt(nonce, key.view, _PURPOSE)
        return PassphraseSealing(salt=salt, cost=_COST, nonce=nonce, wrapped=wrapped)

    def unseal(self, sealing: Sealing) -> Secret:
        """Decrypt the key.

        Raises:
            KeyMismatchError: The passphrase is wrong, or the file was changed.
            SealedKeyError: The sealing is another provider's.
        """
        if not isinstance(sealing, PassphraseSealing):
            raise foreign_sealing(sealing, self.name)
        key = Secret(KEY_BYTES)
        try:
            with self._stretched(sealing.salt, sealing.cost) as wrapping:
                AESGCM(wrapping.view).decrypt_into(
                    sealing.nonce, sealing.wrapped, _PURPOSE, key.view
                )
        except InvalidTag as error:
            key.close()
            raise KeyMismatchError("the passphrase does not open the vault's key") from error
        except BaseException:
            key.close()
            raise
        return key

    def changed(self, sealing: Sealing) -> tuple[int, ...]:
        """Passphrases have no registers."""
        del sealing
        return ()

    def _stretched(self, salt: bytes, cost: int) -> Secret:
        stretched = Secret(KEY_BYTES)
        try:
            with self._ask() as passphrase:
                scrypt = Scrypt(salt=salt, length=KEY_BYTES, n=cost, r=_BLOCK_SIZE, p=1)
                scrypt.derive_into(passphrase.view, stretched.view)
        except BaseException:
            stretched.close()
            raise
        return stretched
