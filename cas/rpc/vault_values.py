"""What vaults are, as messages of ``cas.v1`` and read from them."""

__all__ = ["status_message", "vault_status"]

from pathlib import Path

from cas._gen.cas.v1 import vault_pb2
from cas.fsops.encryption import EncryptionPolicy
from cas.model.vault_settings import VaultName
from cas.rpc.messages import instant as stamp
from cas.rpc.messages import text
from cas.rpc.values import instant, member
from cas.vault.directory import VaultState
from cas.vault.status import VaultStatus
from cas.vault.unlock_record import UnlockMethod


def status_message(status: VaultStatus) -> vault_pb2.VaultStatus:
    """Write what a vault is."""
    differing = status.differing_pcrs
    return vault_pb2.VaultStatus(
        name=status.name.value,
        path=text(status.path),
        state=status.state.value,
        policy=None if status.policy is None else _policy_message(status.policy),
        provider=status.provider or "",
        sealed=None if status.sealed is None else stamp(status.sealed),
        pcrs=status.pcrs,
        differing_pcrs=None if differing is None else vault_pb2.DifferingPcrs(pcrs=differing),
        unlock_method=status.unlock_method.value,
        problem=text(status.problem or ""),
    )


def _policy_message(policy: EncryptionPolicy) -> vault_pb2.EncryptionPolicy:
    return vault_pb2.EncryptionPolicy(
        version=policy.version,
        contents=policy.contents,
        names=policy.names,
        padding=policy.padding,
        identifier=policy.identifier,
    )


def vault_status(message: vault_pb2.VaultStatus) -> VaultStatus:
    """Read what a vault is.

    Raises:
        InvalidNameError: A word of a fixed list is none of them.
    """
    has = message.HasField
    return VaultStatus(
        name=member(VaultName, message.name),
        path=Path(message.path),
        state=member(VaultState, message.state),
        policy=_policy(message.policy) if has("policy") else None,
        provider=message.provider or None,
        sealed=instant(message.sealed) if has("sealed") else None,
        pcrs=tuple(message.pcrs),
        differing_pcrs=tuple(message.differing_pcrs.pcrs) if has("differing_pcrs") else None,
        unlock_method=member(UnlockMethod, message.unlock_method),
        problem=message.problem or None,
    )


def _policy(message: vault_pb2.EncryptionPolicy) -> EncryptionPolicy:
    return EncryptionPolicy(
        version=message.version,
        contents=message.contents,
        names=message.names,
        padding=message.padding,
        identifier=message.identifier,
    )
