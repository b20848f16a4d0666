"""The service ``cas.v1.Vault``.

Keys and passphrases leave their request for a page of their own as soon as they are seen. What gRPC
has copied of them on the way is kept from swap and core dumps with all memory of the process, from
the first call on that handles a key.
"""

__all__ = ["OpenVaults", "VaultServicer"]

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

from cas._gen.cas.v1 import vault_pb2
from cas.errors import CasError, KeyMismatchError, UsageError
from cas.fsops.secrets import Secret, lock_process_memory
from cas.model.vault_settings import VaultName
from cas.rpc import vault_values
from cas.rpc.server.call import Call
from cas.rpc.server.registry import ONLY_WORK
from cas.vault.key import KEY_BYTES
from cas.vault.passphrase import AskPassphrase
from cas.vault.vaults import Vaults

_log = logging.getLogger(__name__)

_MAX_PASSPHRASE_BYTES = 1024
_CONTAINERD_SECONDS = 30.0
_MAX_WAIT_SECONDS = 600.0


class OpenVaults(Protocol):
    """Gives the use cases on the vaults of the persist directory that is served."""

    def __call__(self, *, ask: AskPassphrase) -> Vaults:
        """Give them; ``ask`` gives a passphrase, where a vault has one."""


class _WithPassphrase(Protocol):
    @property
    def passphrase(self) -> bytes: ...


class VaultServicer:
    """Serves the vaults of a persist directory.

    Args:
        open_vaults: Gives what it works with.
    """

    SERVICE = vault_pb2.DESCRIPTOR.services_by_name["Vault"]
    READING = frozenset({"init", "unlock", "lock", "status", "reseal", "recover"})
    UNGUARDED = READING
    KINDS = ONLY_WORK

    def __init__(self, open_vaults: OpenVaults) -> None:
        self._open_vaults = open_vaults

    def init(self, request: vault_pb2.InitVaultRequest, _call: Call) -> vault_pb2.InitVaultResponse:
        """Make and open vaults."""
        self._handling_keys(request).init()
        return vault_pb2.InitVaultResponse()

    def unlock(
        self, request: vault_pb2.UnlockVaultRequest, _call: Call
    ) -> vault_pb2.UnlockVaultResponse:
        """Open vaults."""
        self._handling_keys(request).unlock(_names(request.names))
        return vault_pb2.UnlockVaultResponse()

    def lock(self, request: vault_pb2.LockVaultRequest, _call: Call) -> vault_pb2.LockVaultResponse:
        """Lock vaults."""
        vaults = self._open_vaults(ask=_no_passphrase)
        vaults.lock(_names(request.names), wait_seconds=_wait_seconds(request))
        return vault_pb2.LockVaultResponse()

    def status(
        self, _request: vault_pb2.VaultStatusRequest, _call: Call
    ) -> vault_pb2.VaultStatusResponse:
        """Tell what the vaults are."""
        found = self._open_vaults(ask=_no_passphrase).status()
        return vault_pb2.VaultStatusResponse(vaults=map(vault_values.status_message, found))

    def reseal(
        self, request: vault_pb2.ResealVaultRequest, _call: Call
    ) -> vault_pb2.ResealVaultResponse:
        """Seal keys anew."""
        vaults, names = self._handling_keys(request), _names(request.names)
        if request.HasField("key") and len(request.names) != 1:
            raise UsageError("a key is the key of one vault; name that")
        with _key(request) if request.HasField("key") else nullcontext() as key:
            vaults.reseal(names, key)
        return vault_pb2.ResealVaultResponse()

    def recover(
        self, request: vault_pb2.RecoverVaultRequest, _call: Call
    ) -> vault_pb2.RecoverVaultResponse:
        """Open a vault with its escrowed key."""
        vaults, [name] = self._handling_keys(request), _names([request.name])
        with _key(request) as key:
            vaults.recover(name, key, reseal=not request.no_reseal)
        return vault_pb2.RecoverVaultResponse()

    def _handling_keys(self, request: _WithPassphrase) -> Vaults:
        try:
            lock_process_memory()
        except CasError as error:
            _log.warning("memory of libraries may be swapped reason=%s", error)
        return self._open_vaults(ask=lambda: _passphrase(request))


def _no_passphrase() -> Secret:
    raise UsageError("the vault's key is kept under a passphrase; give it with the call")


def _passphrase(request: _WithPassphrase) -> Secret:
    if not request.passphrase:
        return _no_passphrase()
    if len(request.passphrase) > _MAX_PASSPHRASE_BYTES:
        raise UsageError(f"a passphrase has 1 to {_MAX_PASSPHRASE_BYTES} bytes")
    return _secret(request.passphrase)


@contextmanager
def _key(
    request: vault_pb2.ResealVaultRequest | vault_pb2.RecoverVaultRequest,
) -> Iterator[Secret]:
    if len(request.key) != KEY_BYTES:
        raise KeyMismatchError(f"the given key has {len(request.key)} bytes; a key has {KEY_BYTES}")
    with _secret(request.key) as key:
        request.ClearField("key")
        yield key


def _secret(content: bytes) -> Secret:
    secret = Secret(len(content))
    secret.view[:] = content
    return secret


def _names(names: Sequence[str]) -> tuple[VaultName, ...]:
    try:
        return tuple(map(VaultName, names)) or tuple(VaultName)
    except ValueError:
        known = ", ".join(VaultName)
        raise UsageError(f"no vault has one of these names; vaults are {known}") from None


def _wait_seconds(request: vault_pb2.LockVaultRequest) -> float:
    if not request.HasField("wait"):
        return _CONTAINERD_SECONDS
    seconds = request.wait.seconds + request.wait.nanos / 1e9
    if not 0 <= seconds <= _MAX_WAIT_SECONDS:
        raise UsageError(f"wait is 0 to {_MAX_WAIT_SECONDS:g} seconds")
    return seconds
