"""Asks whether anything may be written under the vault; called before every writing use case.

Reads state only: keys and policies are other people's work.
"""

__all__ = ["VaultGuard"]

import logging
from typing import Self

from cas.errors import (
    CasError,
    InternalError,
    LayoutError,
    UsageError,
    VaultLockedError,
    VaultNotEncryptedError,
)
from cas.fsops.durable import make_directory, write_file
from cas.fsops.encryption import EncryptionState, encryption_state
from cas.fsops.locks import is_locked
from cas.model.layout import Layout
from cas.model.settings import Settings
from cas.model.vault_settings import VaultName

_log = logging.getLogger(__name__)


class VaultGuard:
    """Guards one vault.

    Args:
        layout: Where the vault is.
        require_encryption: Refuse a plain vault instead of warning.
    """

    def __init__(self, layout: Layout, *, require_encryption: bool) -> None:
        self._layout = layout
        self._vault = layout.vault
        self._require_encryption = require_encryption

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Give the guard of the vault that the settings name, as strict as they say."""
        return cls(settings.layout, require_encryption=settings.require_encryption)

    def check_writable(self) -> EncryptionState:
        """Return when writing is allowed; a plain vault is warned of once per boot.

        Asks the kernel anew at each call, since a vault may be locked at any time. A vault that
        somebody is locking right now counts as locked, and a plain one whose key was sealed is
        not what it must be: its file system was exchanged, or its making was not finished.

        Returns:
            ``ENCRYPTED_UNLOCKED`` or ``PLAIN``.

        Raises:
            VaultLockedError: The vault is encrypted and its key is not loaded, or about to go.
            VaultNotEncryptedError: It is plain, and encryption is required or its key was sealed.
            LayoutError: There is no vault directory.
        """
        if not self._vault.is_dir():
            raise LayoutError(
                f"there is no vault directory {str(self._vault)!r}; run `cas layout init`",
                path=self._vault,
            )
        state = encryption_state(self._vault)
        self._refuse_closed(state)
        if state is EncryptionState.PLAIN:
            self._judge_plain()
        return state

    def check_open(self) -> None:
        """Return when the store may be read; a vault that is plain or missing is not closed.

        Raises:
            VaultLockedError: The vault is encrypted and its key is not loaded, or about to go.
            StorageError: A system call failed.
        """
        if self._vault.is_dir():
            self._refuse_closed(encryption_state(self._vault))

    def _refuse_closed(self, state: EncryptionState) -> None:
        if state is EncryptionState.ENCRYPTED_LOCKED:
            raise VaultLockedError(
                f"the vault {str(self._vault)!r} is locked, and with it the store and the list of "
                "volumes, without which none is made, not even in clear; unlock it first, by "
                "`cas vault unlock`",
                path=self._vault,
            )
        if is_locked(self._layout.vault_closing):
            raise VaultLockedError(
                f"the vault {str(self._vault)!r} is being locked; unlock it when that is done",
                path=self._vault,
            )

    def cause_of(self, error: CasError) -> CasError:
        """Give why work failed that needs the vault: because that is closed, or else ``error``.

        In a closed vault names are not found and files not read, whatever that looks like to who
        meets it. What is wrong with a request, or with cas, is wrong anywhere.
        """
        if isinstance(error, UsageError | InternalError):
            return error
        try:
            self.check_open()
        except VaultLockedError as locked:
            return locked
        except CasError:
            return error
        return error

    def is_closed(self) -> bool:
        """Whether the vault is locked or being locked; a plain or missing one is not.

        Raises:
            StorageError: A system call failed.
        """
        try:
            self.check_open()
        except VaultLockedError:
            return True
        return False

    def _judge_plain(self) -> None:
        sealed = self._layout.sealed_key(VaultName.VAULT)
        if sealed.exists():
            raise VaultNotEncryptedError(
                f"the vault {str(self._vault)!r} is not encrypted although {str(sealed)!r} has its "
                "key; see whether the right file system is mounted, and run `cas vault init`",
                path=self._vault,
            )
        if self._require_encryption:
            raise VaultNotEncryptedError(
                f"the vault {str(self._vault)!r} is not encrypted and the configuration requires "
                "it; encrypt the vault or set require_encryption = false",
                path=self._vault,
            )
        marker = self._layout.plain_vault_warned
        if not marker.exists():
            make_directory(marker.parent, mode=0o700)
            write_file(marker, b"")
            _log.warning("vault is not encrypted path=%s", self._vault)
