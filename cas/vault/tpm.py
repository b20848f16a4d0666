"""A key sealed in a TPM, under the state of the machine or without; :mod:`cas.vault.provider`."""

__all__ = ["TpmProvider"]

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from tpm2_pytss import TSS2_Exception

from cas.errors import PcrMismatchError, SealedKeyError, TpmError, TpmUnavailableError
from cas.fsops.secrets import Secret
from cas.model.pcrs import MEASURED_BY_FIRMWARE
from cas.model.vault_settings import ProviderName
from cas.vault.deadline import call_within
from cas.vault.key import KEY_BYTES, new_key
from cas.vault.provider import foreign_sealing
from cas.vault.sealed_key import Sealing, TpmSealing
from cas.vault.tpm_connection import SealedObject, Tpm
from cas.vault.tpm_errors import is_refused_sealing, is_wrong_policy, translated

_WAIT_SECONDS = 30.0
"""Firmware TPMs take up to some seconds for a command, under load from others as well."""
_ZERO = bytes(32)

_Result = TypeVar("_Result")


class TpmProvider:
    """Seals keys by one TPM.

    Args:
        tcti: How it is reached, in the words of tpm2-tss.
        pcrs: Registers of bank sha256 to seal under; empty for none.
        wait_seconds: For its answers, all together.
    """

    name = ProviderName.TPM

    def __init__(
        self, tcti: str, pcrs: Sequence[int] = (), *, wait_seconds: float = _WAIT_SECONDS
    ) -> None:
        self._tcti = tcti
        self._pcrs = tuple(sorted(pcrs))
        self._wait_seconds = wait_seconds

    def new_key(self) -> Secret:
        """A random key."""
        return new_key()

    def seal(self, key: Secret) -> TpmSealing:
        """Seal a key under the registers as they are now.

        Raises:
            TpmUnavailableError: There is no TPM, or it is busy.
            TpmError: It lacks bank sha256, its firmware measures nothing, or it failed.
        """
        return self._ask("seal a key", lambda tpm: self._sealed(tpm, key))

    def _sealed(self, tpm: Tpm, key: Secret) -> TpmSealing:
        values = _read(tpm, self._pcrs)
        _require_measured(values)
        parent = tpm.open_storage_key()
        policy = None
        if values:
            # Of the values that are noted, so that note and policy agree whatever happens now.
            digest = hashlib.sha256(b"".join(values.values())).digest()
            policy = tpm.policy_digest(self._pcrs, digest)
        sealed = tpm.seal(key, policy)
        return TpmSealing(
            parent=parent.hex(),
            public=sealed.public,
            private=sealed.private,
            pcrs={pcr: value.hex() for pcr, value in values.items()},
        )

    def unseal(self, sealing: Sealing) -> Secret:
        """Let the TPM give the key.

        Raises:
            PcrMismatchError: The registers differ; the error names those that do.
            SealedKeyError: Another TPM's, damaged, or no TPM's.
            TpmUnavailableError: There is no TPM, or it is busy.
            TpmError: It failed otherwise.
        """
        mine = _own(sealing)
        return self._ask("unseal a key", lambda tpm: self._unsealed(tpm, mine))

    def _unsealed(self, tpm: Tpm, sealing: TpmSealing) -> Secret:
        self._require_own_storage_key(tpm, sealing)
        key = Secret(KEY_BYTES)
        try:
            self._unseal_into(tpm, sealing, key)
        except BaseException:
            key.close()
            raise
        return key

    def _require_own_storage_key(self, tpm: Tpm, sealing: TpmSealing) -> None:
        if tpm.open_storage_key().hex() != sealing.parent:
            raise SealedKeyError(
                f"the key was not sealed by the TPM at {self._tcti!r}, or that was cleared since; "
                "open the vault by `cas vault recover` with the escrowed key",
                expected=sealing.parent,
            )

    def _unseal_into(self, tpm: Tpm, sealing: TpmSealing, key: Secret) -> None:
        pcrs = sorted(sealing.pcrs)
        try:
            with tpm.loaded(SealedObject(sealing.public, sealing.private)) as handle:
                if tpm.unseal(handle, pcrs, key.view) == key.size:
                    return
        except TSS2_Exception as error:
            if is_wrong_policy(error):
                raise _mismatch(_changed(tpm, sealing)) from error
            if not is_refused_sealing(error):
                raise
            raise self._damaged() from error
        raise self._damaged()

    def _damaged(self) -> SealedKeyError:
        return SealedKeyError(
            f"the TPM at {self._tcti!r} finds the sealed key damaged; open the vault by "
            "`cas vault recover` with the escrowed key, which seals it anew"
        )

    def changed(self, sealing: Sealing) -> tuple[int, ...]:
        """The registers whose values are not those that the key was sealed under.

        The sealing is loaded on the way, which shows whether it is whole, and unseals nothing.

        Raises:
            SealedKeyError: Another TPM's, damaged, or no TPM's.
            TpmUnavailableError: There is no TPM, or it is busy.
            TpmError: It failed otherwise.
        """
        mine = _own(sealing)
        return self._ask("look at a sealed key", lambda tpm: self._looked(tpm, mine))

    def _looked(self, tpm: Tpm, sealing: TpmSealing) -> tuple[int, ...]:
        self._require_own_storage_key(tpm, sealing)
        try:
            with tpm.loaded(SealedObject(sealing.public, sealing.private)):
                return _changed(tpm, sealing)
        except TSS2_Exception as error:
            if not is_refused_sealing(error):
                raise
            raise self._damaged() from error

    def _ask(self, action: str, question: Callable[[Tpm], _Result]) -> _Result:
        def ask() -> _Result:
            with translated(action, self._tcti), Tpm(self._tcti) as tpm:
                return question(tpm)

        try:
            return call_within(self._wait_seconds, ask)
        except TimeoutError as error:
            raise TpmUnavailableError(
                f"the TPM at {self._tcti!r} did not answer within {self._wait_seconds:g} s; "
                "somebody else may have it open: stop that, or try again",
                tcti=self._tcti,
            ) from error


def _own(sealing: Sealing) -> TpmSealing:
    if not isinstance(sealing, TpmSealing):
        raise foreign_sealing(sealing, ProviderName.TPM)
    return sealing


def _read(tpm: Tpm, pcrs: Sequence[int]) -> dict[int, bytes]:
    values = tpm.read_pcrs(pcrs)
    if len(values) < len(pcrs):
        raise TpmError(
            f"the TPM has no values for {len(pcrs) - len(values)} of the PCRs in bank sha256; "
            "switch that bank on in the firmware's set-up"
        )
    return values


def _require_measured(values: dict[int, bytes]) -> None:
    for pcr in MEASURED_BY_FIRMWARE:
        if values.get(pcr) == _ZERO:
            raise TpmError(
                f"PCR {pcr} is zero: the firmware measures nothing, so that the key would open "
                "for any system; switch measured boot on, or choose another provider",
                pcr=pcr,
            )


def _changed(tpm: Tpm, sealing: TpmSealing) -> tuple[int, ...]:
    now = _read(tpm, sorted(sealing.pcrs))
    return tuple(pcr for pcr, value in now.items() if sealing.pcrs[pcr] != value.hex())


def _mismatch(pcrs: Sequence[int]) -> PcrMismatchError:
    names = ", ".join(map(str, pcrs)) or "none now"
    return PcrMismatchError(
        "the machine was not started as it was when the key was sealed; PCRs that differ: "
        f"{names}; start what was started then, or open the vault by `cas vault recover` with the "
        "escrowed key",
        pcrs=",".join(map(str, pcrs)),
    )
