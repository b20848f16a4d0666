"""What keeps a vault's key while the vault is locked: one interface, several keepers."""

__all__ = ["KeyProvider", "foreign_sealing"]

from typing import Protocol

from cas.errors import SealedKeyError
from cas.fsops.secrets import Secret
from cas.model.vault_settings import ProviderName
from cas.vault.sealed_key import Sealing


class KeyProvider(Protocol):
    """Seals keys of 32 bytes and gives them back. Writes no file."""

    @property
    def name(self) -> ProviderName:
        """Which one it is."""

    def new_key(self) -> Secret:
        """Give the key for a new vault; the caller closes it.

        Raises:
            VaultError: There is none.
        """

    def seal(self, key: Secret) -> Sealing:
        """Make a sealing of a key, which stays the caller's.

        Raises:
            VaultError: The key cannot be sealed here.
            UnavailableError: The keeper does not answer.
        """

    def unseal(self, sealing: Sealing) -> Secret:
        """Give the key again; the caller compares its digest, and closes it.

        Raises:
            PcrMismatchError: The machine was not started as it was when the key was sealed.
            SealedKeyError: The sealing is damaged, or another keeper's.
            KeyMismatchError: What was given to open it is wrong.
            UnavailableError: The keeper does not answer.
        """

    def changed(self, sealing: Sealing) -> tuple[int, ...]:
        """The registers that differ from when it was sealed; empty for keepers without any.

        Raises:
            SealedKeyError: The sealing is damaged, or another keeper's.
            UnavailableError: The keeper does not answer.
        """


def foreign_sealing(sealing: Sealing, wanted: ProviderName) -> SealedKeyError:
    """Make the error for a sealing of another kind."""
    found = type(sealing).__struct_config__.tag
    return SealedKeyError(
        f"the key was sealed by provider {found!r}, not by {wanted.value!r}; see the vault's "
        "sealed key file",
        expected=wanted.value,
        actual=found,
    )
