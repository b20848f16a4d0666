"""What a vault is, in values that a person or a program can be told."""

__all__ = ["VaultStatus", "vault_status"]

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cas.errors import CasError
from cas.fsops.encryption import EncryptionPolicy
from cas.model.vault_settings import VaultName
from cas.vault.directory import VaultDirectory, VaultState
from cas.vault.providers import Providers
from cas.vault.sealed_key import SealedKey, TpmSealing
from cas.vault.unlock_record import UnlockMethod


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """One vault as it is now.

    Args:
        name: Which.
        path: Its directory.
        state: What that is.
        policy: How it is encrypted; None if it is not.
        provider: Who keeps the key; None if nobody does.
        sealed: When the key was sealed.
        pcrs: Registers of bank sha256 that the key is sealed under; empty without any.
        differing_pcrs: Those that differ now; None if that could not be asked.
        unlock_method: How it was opened in this boot.
        problem: What would be in the way of opening it, for people.
    """

    name: VaultName
    path: Path
    state: VaultState
    policy: EncryptionPolicy | None
    provider: str | None
    sealed: datetime | None
    pcrs: tuple[int, ...]
    differing_pcrs: tuple[int, ...] | None
    unlock_method: UnlockMethod
    problem: str | None


def vault_status(vault: VaultDirectory, providers: Providers) -> VaultStatus:
    """Look at a vault, its sealed key and its keeper. Changes nothing, asks nobody for a secret.

    A sealed key that is damaged and a keeper that does not answer are told as a problem.

    Raises:
        DeniedError: The process may not look.
        StorageError: A system call failed.
    """
    state, policy = vault.state(), vault.policy()
    sealed: SealedKey | None = None
    differing: tuple[int, ...] | None = None
    problem: str | None = None
    try:
        sealed = vault.sealed()
        if sealed is not None:
            differing = providers.keeper_of(sealed.sealing).changed(sealed.sealing)
            vault.require_key_of(sealed)
    except CasError as error:
        problem = error.message
    if policy is not None and sealed is None and problem is None:
        problem = "there is no sealed key; only `cas vault recover` opens it"
    sealing = sealed.sealing if sealed is not None else None
    return VaultStatus(
        name=vault.name,
        path=vault.path,
        state=state,
        policy=policy,
        provider=None if sealing is None else str(type(sealing).__struct_config__.tag),
        sealed=None if sealed is None else sealed.sealed,
        pcrs=tuple(sorted(sealing.pcrs)) if isinstance(sealing, TpmSealing) else (),
        differing_pcrs=differing,
        unlock_method=vault.unlock_method() if state is VaultState.OPEN else UnlockMethod.NONE,
        problem=problem,
    )
