"""The use cases on encrypted directories: made, opened, locked, resealed, recovered.

One of them runs at a time, between processes too. Every one may be repeated.
"""

__all__ = ["VaultState", "VaultStatus", "Vaults"]

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from cas.errors import CasError, VaultNotEncryptedError
from cas.fsops.locks import lock
from cas.fsops.secrets import Secret
from cas.model.settings import Settings
from cas.model.vault_settings import VaultName
from cas.store.directories import create_directories
from cas.vault.directory import VaultDirectory, VaultState
from cas.vault.passphrase import AskPassphrase
from cas.vault.providers import Providers
from cas.vault.release import lock_directory, release_vault
from cas.vault.status import VaultStatus, vault_status

_ALL = (VaultName.UNSEALED, VaultName.VAULT)
"""In this order: what does not depend on the state of the machine opens whatever that is."""
_CONTAINERD_SECONDS = 30.0


class Vaults:
    """The vaults of one persist directory.

    Args:
        settings: Where they are, and who keeps the keys of new ones.
        clock: Gives the current time, aware.
        ask: Gives a passphrase, where a vault has one.
    """

    def __init__(
        self, settings: Settings, *, clock: Callable[[], datetime], ask: AskPassphrase
    ) -> None:
        self._settings = settings
        self._layout = settings.layout
        self._providers = Providers(settings.vault, ask)
        self._vaults = {
            name: VaultDirectory(name, self._layout, self._providers, clock) for name in _ALL
        }

    def init(self) -> None:
        """Make the layout with its vaults encrypted and open, as the configuration wants them.

        What exists stays as it is, and is opened. After a kill at any moment a repeat goes on.

        Raises:
            AlreadyExistsError: A directory is encrypted and its key is nowhere.
            ConflictError: A directory that is to be encrypted holds files.
            EncryptionUnsupportedError: The file system cannot encrypt.
            DeniedError: The process is not root.
            VaultError: A key cannot be sealed, or not be unsealed.
            UnavailableError: The keeper of a key does not answer.
        """
        with self._locked():
            self._open_encrypted()
            # Accounts, and directories to encrypt; then what is missing in those.
            create_directories(self._settings)
            for vault in self._vaults.values():
                vault.encrypt()
            create_directories(self._settings)

    def _open_encrypted(self) -> None:
        for vault in self._vaults.values():
            if vault.policy() is not None:
                vault.encrypt()

    def unlock(self, names: Sequence[VaultName] = _ALL) -> None:
        """Open vaults with the keys that their keepers give; plain ones are open.

        One that does not open keeps no other from opening.

        Raises:
            PcrMismatchError: The machine was not started as it was when a key was sealed.
            SealedKeyError: A sealed key is missing or damaged.
            KeyMismatchError: Another key was unsealed, or a wrong passphrase given.
            LayoutError: There is no vault.
            VaultNotEncryptedError: The making of a vault was not finished.
            UnavailableError: The keeper does not answer.
        """
        failed: CasError | None = None
        with self._locked():
            for vault in self._chosen(names):
                try:
                    vault.unlock()
                except CasError as error:
                    if failed is not None:
                        error.add_note(f"also: {failed.message}")
                    failed = error
        if failed is not None:
            raise failed

    def lock(
        self,
        names: Sequence[VaultName] = _ALL,
        *,
        wait_seconds: float = _CONTAINERD_SECONDS,
    ) -> None:
        """Deactivate the volumes, see containerd end, take the keys, see that nothing is readable.

        Plain vaults are left alone. After a failure the vaults are open or half locked, and a
        repeat goes on.

        Args:
            names: Which.
            wait_seconds: For containerd to end, and whoever else has files in a vault open; in a
                call of the service no longer than its deadline.

        Raises:
            InUseError: Somebody uses a vault; the message names who.
            InterruptedOperationError: The call that this belongs to was given up by its caller.
            VaultNotEncryptedError: None of them is encrypted.
            StorageError: A system call failed.
        """
        with self._locked():
            encrypted = [vault for vault in self._chosen(names) if vault.policy() is not None]
            if not encrypted:
                raise VaultNotEncryptedError(
                    f"nothing to lock: {', '.join(names)} not encrypted; run `cas vault init`"
                )
            deadline = time.monotonic() + wait_seconds
            with lock(self._layout.vault_closing):
                if any(vault.name is VaultName.VAULT for vault in encrypted):
                    release_vault(self._layout, deadline=deadline)
                for vault in encrypted:
                    lock_directory(vault, deadline=deadline)

    def reseal(self, names: Sequence[VaultName] = _ALL, key: Secret | None = None) -> None:
        """Seal keys anew, under the registers and the configuration of now. Opens nothing.

        Until a new sealing is durable and was seen to open, the old one stays. Plain vaults are
        left alone.

        Args:
            names: Which.
            key: The escrowed key, for one vault whose sealing does not open any more.

        Raises:
            PcrMismatchError: The old sealing does not open, and no key was given.
            KeyMismatchError: The given key is not the vault's.
            VaultNotEncryptedError: None of them is encrypted, or nobody is to keep the key.
            VaultError: The key cannot be had or sealed.
            UnavailableError: The keeper does not answer.
        """
        with self._locked():
            encrypted = [vault for vault in self._chosen(names) if vault.policy() is not None]
            if not encrypted:
                raise VaultNotEncryptedError(
                    f"nothing to seal: {', '.join(names)} not encrypted; run `cas vault init`"
                )
            for vault in encrypted:
                if key is not None:
                    vault.check_key(key)
                    vault.reseal(key)
                    continue
                with vault.key() as own:
                    vault.reseal(own)

    def recover(self, name: VaultName, key: Secret, *, reseal: bool = True) -> None:
        """Open a vault with its escrowed key, and seal that anew under the registers of now.

        The key is compared before it is used. Once it is open it stays open, whatever becomes of
        the sealing.

        Args:
            name: Which.
            key: 32 bytes.
            reseal: Whether to seal.

        Raises:
            KeyMismatchError: It is not this vault's key; nothing happened.
            LayoutError: There is no vault.
            VaultNotEncryptedError: It is plain.
            VaultError: It is open, and its key could not be sealed.
            UnavailableError: It is open, and the keeper does not answer.
        """
        with self._locked():
            vault = self._vaults[name]
            vault.recover(key)
            if reseal:
                vault.reseal(key)

    def key(self, name: VaultName) -> Secret:
        """Let the keeper give a vault's key, to be kept in escrow; the caller closes it.

        Raises:
            VaultError: It is not encrypted, or the keeper does not give the key.
            LayoutError: There is no vault.
            UnavailableError: The keeper does not answer.
        """
        with self._locked():
            return self._vaults[name].key()

    def status(self) -> list[VaultStatus]:
        """Tell what the vaults are now. Changes nothing.

        Raises:
            DeniedError: The process may not look.
            StorageError: A system call failed.
        """
        return [vault_status(self._vaults[name], self._providers) for name in VaultName]

    def _locked(self) -> AbstractContextManager[None]:
        return lock(self._layout.vaults_lock)

    def _chosen(self, names: Sequence[VaultName]) -> Iterator[VaultDirectory]:
        return (self._vaults[name] for name in _ALL if name in names)
