"""What an installation chooses for its vaults."""

__all__ = ["DEFAULT_TCTI", "ProviderName", "VaultName", "VaultSettings"]

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cas.model.pcrs import DEFAULT_PCRS

DEFAULT_TCTI = "device:/dev/tpmrm0"
"""The kernel's resource manager, which several users may have open."""


class VaultName(StrEnum):
    """The encrypted directories of the layout."""

    VAULT = "vault"
    """Its key is sealed under PCRs, where a TPM holds it."""
    UNSEALED = "unsealed-vault"
    """Its key does not depend on PCRs."""


class ProviderName(StrEnum):
    """Who keeps a vault's key."""

    TPM = "tpm"
    KEY_FILE = "key-file"
    """A file that somebody else protects; for development."""
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of one, not one
    """A person; for development."""
    DISABLED = "disabled"
    """Nobody: the directory is plain."""


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """How vaults are made and resealed; what exists says itself how it opens.

    Args:
        provider: Who keeps the keys.
        unsealed_provider: Who keeps that of ``unsealed-vault``; None means the same.
        pcrs: What the vault's key is sealed under, bank sha256.
        tcti: How the TPM is reached, in the words of tpm2-tss.
        key_file: For ``key-file``.
    """

    provider: ProviderName = ProviderName.TPM
    unsealed_provider: ProviderName | None = None
    pcrs: tuple[int, ...] = DEFAULT_PCRS
    tcti: str = DEFAULT_TCTI
    key_file: Path | None = None

    def provider_of(self, name: VaultName) -> ProviderName:
        """Who keeps the key of one vault."""
        if name is VaultName.UNSEALED and self.unsealed_provider is not None:
            return self.unsealed_provider
        return self.provider
