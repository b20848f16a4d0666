"""One encrypted directory: what it is, and the steps that change it.

Callers hold the lock of the vaults. The order of steps is such that a kill between any two leaves a
directory that is plain and empty, or one whose key the sealed key file gives.
"""

__all__ = ["VaultDirectory", "VaultState"]

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from cas.errors import (
    AlreadyExistsError,
    EncryptionUnsupportedError,
    KeyMismatchError,
    LayoutError,
    SealedKeyError,
    StorageError,
    VaultError,
    VaultNotEncryptedError,
)
from cas.fsops.encryption import EncryptionPolicy, read_policy, set_policy, supports_encryption
from cas.fsops.encryption_keys import KeyStatus, add_key, key_status, remove_key
from cas.fsops.secrets import Secret
from cas.fsops.trees import remove_empty_directories
from cas.model.layout import Layout
from cas.model.vault_settings import VaultName
from cas.vault.key import identifier_of, key_digest, master_key
from cas.vault.provider import KeyProvider
from cas.vault.providers import Providers
from cas.vault.sealed_key import SealedKey, read_sealed_key, write_sealed_key
from cas.vault.unlock_record import UnlockMethod, forget_unlock, read_unlock, record_unlock


class VaultState(StrEnum):
    """What a vault's directory is now."""

    MISSING = "missing"
    PLAIN = "plain"
    UNFINISHED = "unfinished"
    """Plain although its key was sealed: whoever made it was stopped; ``init`` goes on."""
    OPEN = "open"
    LOCKED = "locked"
    HALF_LOCKED = "half-locked"
    """The key is gone, and what was open then can still be read."""


class VaultDirectory:
    """The vault of one name.

    Args:
        name: Which.
        layout: Where.
        providers: Who keeps its key.
        clock: Gives the current time, aware.
    """

    def __init__(
        self, name: VaultName, layout: Layout, providers: Providers, clock: Callable[[], datetime]
    ) -> None:
        self.name = name
        self.path = layout.vault_directory(name)
        self._sealed_path = layout.sealed_key(name)
        self._unlock_path = layout.unlock_record(name)
        self._persist = layout.persist
        self._providers = providers
        self._clock = clock

    def policy(self) -> EncryptionPolicy | None:
        """How it is encrypted; None if it is plain or missing."""
        return read_policy(self.path) if self.path.is_dir() else None

    def sealed(self) -> SealedKey | None:
        """Its sealed key; None if there is none.

        Raises:
            SealedKeyError: The file is damaged.
        """
        return read_sealed_key(self._sealed_path)

    def state(self) -> VaultState:
        """What it is now; changes nothing."""
        if not self.path.is_dir():
            return VaultState.MISSING
        policy = self.policy()
        if policy is None:
            unfinished = self._sealed_path.exists()
            return VaultState.UNFINISHED if unfinished else VaultState.PLAIN
        match key_status(self.path, policy.identifier):
            case KeyStatus.PRESENT:
                return VaultState.OPEN
            case KeyStatus.ABSENT:
                return VaultState.LOCKED
            case _:
                return VaultState.HALF_LOCKED

    def encrypt(self) -> None:
        """Make the directory, which exists, an encrypted one that is open. Idempotent.

        A directory that has nothing but empty directories in it loses those.

        Raises:
            AlreadyExistsError: It is encrypted and nobody here has its key.
            ConflictError: It is plain and holds files.
            EncryptionUnsupportedError: Its file system cannot encrypt.
            VaultError: Its key cannot be made, sealed or unsealed.
            UnavailableError: The keeper of the key does not answer.
        """
        provider = self._providers.configured(self.name)
        if self.policy() is not None:
            self._require_known()
            self.unlock()
            return
        if provider is None:
            return
        self._require_encryptable()
        remove_empty_directories(self.path)
        with self._first_key(provider) as key, master_key(key, self.name) as master:
            add_key(self._persist, master)
            set_policy(self.path, identifier_of(master))
        record_unlock(self._unlock_path, UnlockMethod(provider.name))

    def _require_known(self) -> None:
        if self.sealed() is None:
            raise AlreadyExistsError(
                f"{str(self.path)!r} is encrypted already and there is no sealed key "
                f"{str(self._sealed_path)!r}; give the escrowed key to `cas vault recover`",
                path=self.path,
            )

    def _require_encryptable(self) -> None:
        if not supports_encryption(self._persist):
            raise EncryptionUnsupportedError(
                f"the file system of {str(self._persist)!r} has no encryption; use ext4 or f2fs "
                "and switch the feature on, for ext4 with `tune2fs -O encrypt DEVICE`, or set "
                'provider = "disabled" under [vault]',
                path=self._persist,
            )

    def _first_key(self, provider: KeyProvider) -> Secret:
        """The key that an interrupted try has sealed, or else a new one that is sealed now."""
        try:
            sealed = self.sealed()
            if sealed is not None and self._keeper(sealed).name is provider.name:
                return self._unsealed(sealed)
        except VaultError:
            pass  # nothing is encrypted under it
        key = provider.new_key()
        try:
            self._seal(provider, key)
        except BaseException:
            key.close()
            raise
        return key

    def unlock(self) -> None:
        """Open it with the key that its keeper gives. Idempotent; nothing happens to a plain one.

        Raises:
            LayoutError: It does not exist.
            VaultError: It is half made, or the keeper does not give the key.
            UnavailableError: The keeper does not answer.
        """
        state = self.state()
        if state in (VaultState.OPEN, VaultState.PLAIN):
            return
        sealed = self._require_sealed(state)
        with self._unsealed(sealed) as key:
            self._open(key, UnlockMethod(self._keeper(sealed).name))

    def _require_sealed(self, state: VaultState) -> SealedKey:
        if state is VaultState.MISSING:
            raise LayoutError(f"there is no {str(self.path)!r}; run `cas vault init`")
        if state in (VaultState.PLAIN, VaultState.UNFINISHED):
            raise VaultNotEncryptedError(
                f"{str(self.path)!r} is not encrypted; run `cas vault init`", path=self.path
            )
        sealed = self.sealed()
        if sealed is None:
            raise SealedKeyError(
                f"there is no sealed key {str(self._sealed_path)!r} for the vault; give the "
                "escrowed key to `cas vault recover`",
                path=self._sealed_path,
            )
        return sealed

    def key(self) -> Secret:
        """Let the keeper give the key, for escrow; the caller closes it.

        Raises:
            LayoutError: There is no vault.
            VaultError: It is not encrypted, or the keeper does not give the key.
            KeyMismatchError: What the keeper gives is not this vault's key.
            UnavailableError: The keeper does not answer.
        """
        key = self._unsealed(self._require_sealed(self.state()))
        try:
            self.check_key(key)
        except BaseException:
            key.close()
            raise
        return key

    def _keeper(self, sealed: SealedKey) -> KeyProvider:
        return self._providers.keeper_of(sealed.sealing)

    def _unsealed(self, sealed: SealedKey) -> Secret:
        key = self._keeper(sealed).unseal(sealed.sealing)
        if key_digest(key).hex != sealed.key_digest:
            key.close()
            raise KeyMismatchError(
                f"what was unsealed for {str(self.path)!r} is not its key: expected "
                f"{sealed.key_digest}; open it by `cas vault recover` with the escrowed key",
                expected=sealed.key_digest,
            )
        return key

    def recover(self, key: Secret) -> None:
        """Open it with an escrowed key, which is compared before it is used. Idempotent.

        Raises:
            KeyMismatchError: It is not this vault's key; nothing happened.
            LayoutError: There is no vault.
            VaultNotEncryptedError: It is plain.
        """
        self.check_key(key)
        self._open(key, UnlockMethod.RECOVERED)

    def check_key(self, key: Secret) -> None:
        """Compare a key with the digest that was noted, and with what the directory names.

        Raises:
            KeyMismatchError: It is not this vault's key.
            LayoutError: There is no vault.
            VaultNotEncryptedError: It is plain.
        """
        sealed = self._own_sealed()
        found = key_digest(key).hex
        if sealed is not None and sealed.key_digest != found:
            raise KeyMismatchError(
                f"the given key is not that of {str(self.path)!r}: its sha256 is {found}, "
                f"expected {sealed.key_digest}",
                expected=sealed.key_digest,
                actual=found,
            )
        with master_key(key, self.name) as master:
            self._require_own(identifier_of(master))

    def _own_sealed(self) -> SealedKey | None:
        """The sealed key, unless it cannot be read or is that of another directory."""
        policy = self.policy()
        try:
            sealed = self.sealed()
        except (SealedKeyError, StorageError):
            return None
        if sealed is None or policy is None or sealed.identifier != policy.identifier.hex():
            return None
        return sealed

    def _require_own(self, identifier: bytes) -> None:
        policy = self.policy()
        if policy is None:
            raise VaultNotEncryptedError(
                f"{str(self.path)!r} is not encrypted; run `cas vault init`", path=self.path
            )
        if policy.identifier != identifier:
            raise KeyMismatchError(
                f"{str(self.path)!r} is encrypted under another key: it names "
                f"{policy.identifier.hex()}, the key at hand is {identifier.hex()}",
                expected=policy.identifier.hex(),
                actual=identifier.hex(),
            )

    def _open(self, key: Secret, method: UnlockMethod) -> None:
        with master_key(key, self.name) as master:
            self._require_own(identifier_of(master))
            add_key(self._persist, master)
        record_unlock(self._unlock_path, method)

    def remove_key(self) -> bool:
        """Take its key from the kernel; whether nothing is readable any more. Idempotent."""
        policy = self.policy()
        if policy is not None and not remove_key(self._persist, policy.identifier):
            return False
        return self.state() not in (VaultState.OPEN, VaultState.HALF_LOCKED)

    def require_key_of(self, sealed: SealedKey) -> None:
        """See that a sealed key is that of the directory, if that is encrypted at all.

        Raises:
            KeyMismatchError: The directory names another key.
        """
        if self.policy() is not None:
            self._require_own(bytes.fromhex(sealed.identifier))

    def unlock_method(self) -> UnlockMethod:
        """How it was opened in this boot."""
        return read_unlock(self._unlock_path)

    def forget_unlock(self) -> None:
        """Forget how it was opened, since it is locked. Idempotent."""
        forget_unlock(self._unlock_path)

    def reseal(self, key: Secret) -> None:
        """Seal its key anew, as the configuration says now; until that is done the old one stays.

        Raises:
            ConfigError: The configuration names no provider.
            VaultError: The key cannot be sealed.
            UnavailableError: The keeper does not answer.
        """
        provider = self._providers.configured(self.name)
        if provider is None:
            raise VaultNotEncryptedError(
                'provider under [vault] is "disabled": nobody would keep the key; name another',
                path=self.path,
            )
        self._seal(provider, key)

    def _seal(self, provider: KeyProvider, key: Secret) -> None:
        sealing = provider.seal(key)
        # A sealing that cannot be opened must not take the place of one that can.
        with provider.unseal(sealing) as again:
            if again.view != key.view:
                raise SealedKeyError(
                    f"what provider {provider.name.value!r} sealed comes back as another key"
                )
        with master_key(key, self.name) as master:
            sealed = SealedKey(
                format_version=1,
                key_digest=key_digest(key).hex,
                identifier=identifier_of(master).hex(),
                sealed=self._clock(),
                sealing=sealing,
            )
        write_sealed_key(self._sealed_path, sealed)
