"""A persist directory that can be encrypted, with a TPM, and the use cases on its vaults."""

__all__ = ["PCRS", "VaultMachine", "no_passphrase", "secret"]

from dataclasses import replace
from pathlib import Path

from cas.app import open_vaults
from cas.fsops.secrets import Secret
from cas.model.settings import Settings
from cas.model.vault_settings import ProviderName, VaultName, VaultSettings
from cas.vault.status import VaultStatus
from cas.vault.vaults import Vaults
from tests.support.daemon import settings_for
from tests.support.loopfs import LoopFileSystem
from tests.support.swtpm import SoftwareTpm

PCRS = (0, 4, 7)


def no_passphrase() -> Secret:
    """Fail whoever asks for one."""
    message = "nobody was to be asked for a passphrase"
    raise AssertionError(message)


class VaultMachine:
    """A device: a disk, a TPM, a configuration.

    Args:
        disk: Its file system.
        tpm: Its TPM.
        containerd: The binary.
    """

    def __init__(
        self, disk: LoopFileSystem, tpm: SoftwareTpm, containerd: str = "containerd"
    ) -> None:
        self.disk = disk
        self.tpm = tpm
        self.settings = replace(
            settings_for(disk.path, containerd), vault=VaultSettings(pcrs=PCRS, tcti=tpm.tcti)
        )

    @property
    def vaults(self) -> Vaults:
        """The use cases, as a new process would have them."""
        return open_vaults(self.settings, ask=no_passphrase)

    @property
    def vault(self) -> Path:
        """The directory that is encrypted under PCRs."""
        return self.settings.layout.vault

    def configure(self, provider: ProviderName, **options: object) -> Settings:
        """Change the configuration."""
        vault = replace(self.settings.vault, provider=provider, **options)  # type: ignore[arg-type]
        self.settings = replace(self.settings, vault=vault)
        return self.settings

    def status(self, name: VaultName = VaultName.VAULT) -> VaultStatus:
        """What one vault is."""
        [found] = [status for status in self.vaults.status() if status.name is name]
        return found

    def escrow(self, name: VaultName = VaultName.VAULT) -> bytes:
        """Copy a vault's key."""
        with self.vaults.key(name) as key:
            return bytes(key.view)

    def sealed(self, name: VaultName = VaultName.VAULT) -> Path:
        """The file of a sealed key."""
        return self.settings.layout.sealed_key(name)

    def reboot(self) -> None:
        """Power off and on: keys gone, PCRs anew."""
        self.disk.remount()
        self.tpm.reboot()


def secret(content: bytes) -> Secret:
    """Make a secret of bytes that are none."""
    made = Secret(len(content))
    made.view[:] = content
    return made
