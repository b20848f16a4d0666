"""Which provider keeps the key of which vault; libraries of a provider load when it is needed."""

__all__ = ["Providers"]

from typing import assert_never

from cas.errors import ConfigError, TpmUnavailableError
from cas.model.vault_settings import ProviderName, VaultName, VaultSettings
from cas.vault.key_file import KeyFileProvider
from cas.vault.passphrase import AskPassphrase, PassphraseProvider
from cas.vault.provider import KeyProvider
from cas.vault.sealed_key import KeyFileSealing, PassphraseSealing, Sealing, TpmSealing


class Providers:
    """The providers of one installation.

    Args:
        settings: Who keeps keys, and how they are reached.
        ask: Gives the passphrase where one is needed.
    """

    def __init__(self, settings: VaultSettings, ask: AskPassphrase) -> None:
        self._settings = settings
        self._ask = ask

    def configured(self, name: VaultName) -> KeyProvider | None:
        """Give the one that seals the key of a vault; None if the vault is to be plain.

        Raises:
            ConfigError: It is a key file and none is named.
            TpmUnavailableError: The library for TPMs is not installed.
        """
        provider = self._settings.provider_of(name)
        match provider:
            case ProviderName.TPM:
                return self._tpm(self._settings.pcrs if name is VaultName.VAULT else ())
            case ProviderName.KEY_FILE:
                return self._key_file()
            case ProviderName.PASSPHRASE:
                return PassphraseProvider(self._ask)
            case ProviderName.DISABLED:
                return None
        assert_never(provider)

    def keeper_of(self, sealing: Sealing) -> KeyProvider:
        """Give the one that can open a sealing, whatever is configured now.

        Raises:
            ConfigError: It is a key file and none is named.
            TpmUnavailableError: The library for TPMs is not installed.
        """
        match sealing:
            case TpmSealing():
                return self._tpm(tuple(sorted(sealing.pcrs)))
            case KeyFileSealing():
                return self._key_file()
            case PassphraseSealing():
                return PassphraseProvider(self._ask)
        assert_never(sealing)

    def _key_file(self) -> KeyProvider:
        if self._settings.key_file is None:
            raise ConfigError("provider is 'key-file' and key_file under [vault] names none")
        return KeyFileProvider(self._settings.key_file)

    def _tpm(self, pcrs: tuple[int, ...]) -> KeyProvider:
        try:
            from cas.vault.tpm import TpmProvider  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise TpmUnavailableError(
                f"the library for TPMs cannot be loaded: {error}; install eve-cas[tpm] and "
                "libtss2, or choose another provider under [vault]"
            ) from error
        return TpmProvider(self._settings.tcti, pcrs)
