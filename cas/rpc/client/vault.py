"""Vaults, asked for from the service; :class:`cas.vault.vaults.Vaults` has the promises."""

__all__ = ["VaultClient"]

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from google.protobuf.duration_pb2 import Duration

from cas._gen.cas.v1 import vault_pb2, vault_pb2_grpc
from cas.errors import ServiceMismatchError
from cas.fsops.secrets import Secret
from cas.model.vault_settings import VaultName
from cas.rpc.client.calls import Calls
from cas.rpc.client.channel import open_channel
from cas.rpc.client.opening import Wait
from cas.rpc.client.running import run_apart
from cas.rpc.vault_values import vault_status
from cas.vault.status import VaultStatus

_ALL = tuple(VaultName)
_CONTAINERD_SECONDS = 30.0


class VaultClient:
    """The vaults of a service's persist directory, locked or not; may be shared by threads.

    A key or passphrase goes to the service in a message, of which nobody wipes the copies that gRPC
    makes: whoever is root on the machine better opens the vaults by the library. There is no call
    that gives a key.

    Args:
        calls: Makes the calls.
        passphrase: Of vaults whose key is kept under one; stays the caller's.
    """

    def __init__(self, calls: Calls, passphrase: Secret | None = None) -> None:
        self._calls = calls
        self._stub = vault_pb2_grpc.VaultStub(calls.channel)
        self._passphrase = passphrase

    @classmethod
    def connect(
        cls,
        socket: Path,
        *,
        passphrase: Secret | None = None,
        listening_seconds: float = 0.0,
        on_wait: Callable[[], object] = lambda: None,
    ) -> Self:
        """Connect, also to a service that still waits for its vault; use it as a context manager.

        Args:
            socket: The service's unix socket.
            passphrase: Of vaults whose key is kept under one; stays the caller's.
            listening_seconds: How long to wait for somebody to listen on the socket; a program
                that is started beside the service gives some.
            on_wait: Called once when that takes more than a moment.

        Raises:
            ServiceUnavailableError: Nobody answers on the socket.
            DeniedError: The socket may not be used by this user.
            SocketPathError: The path is too long for a socket.
        """
        channel = open_channel(socket, listening=Wait(listening_seconds, on_wait))
        return cls(Calls(channel), passphrase)

    def require_persist(self, persist: Path) -> None:
        """Make sure that the service works on one persist directory and no other.

        Raises:
            ServiceMismatchError: It works on another one.
        """
        for vault in self.status():
            if vault.path.parent.resolve() != persist.resolve():
                raise ServiceMismatchError(
                    f"the service works on {vault.path.parent} and not on {persist}; ask another "
                    "service, or none",
                    persist=vault.path.parent,
                )

    def init(self) -> None:
        """Make what is missing of layout and vaults, and open these; see ``Vaults.init``.

        A service has a layout already, so that the first time is ``cas vault init``'s.
        """
        request = vault_pb2.InitVaultRequest(passphrase=_content(self._passphrase))
        self._calls.unary(self._stub.Init, request, action="make vaults")

    def unlock(self, names: Sequence[VaultName] = _ALL) -> None:
        """Open vaults with the keys that their keepers give; see ``Vaults.unlock``."""
        request = vault_pb2.UnlockVaultRequest(names=names, passphrase=_content(self._passphrase))
        self._calls.unary(self._stub.Unlock, request, action="unlock vaults")

    def lock(
        self, names: Sequence[VaultName] = _ALL, *, wait_seconds: float = _CONTAINERD_SECONDS
    ) -> None:
        """Deactivate volumes, see containerd end, take the keys; see ``Vaults.lock``."""
        wait = Duration()
        wait.FromNanoseconds(int(wait_seconds * 1e9))
        request = vault_pb2.LockVaultRequest(names=names, wait=wait)
        self._calls.unary(self._stub.Lock, request, action="lock vaults")

    def status(self) -> list[VaultStatus]:
        """Tell what the vaults are now."""
        request = vault_pb2.VaultStatusRequest()
        answer = self._calls.unary(self._stub.Status, request, action="look at the vaults")
        return list(map(vault_status, answer.vaults))

    def reseal(self, names: Sequence[VaultName] = _ALL, key: Secret | None = None) -> None:
        """Seal keys anew, under the registers of now; see ``Vaults.reseal``."""
        request = vault_pb2.ResealVaultRequest(
            names=names, key=_content(key), passphrase=_content(self._passphrase)
        )
        self._calls.unary(self._stub.Reseal, request, action="seal keys anew")

    def recover(self, name: VaultName, key: Secret, *, reseal: bool = True) -> None:
        """Open a vault with its escrowed key, and seal that anew; see ``Vaults.recover``."""
        request = vault_pb2.RecoverVaultRequest(
            name=name,
            key=bytes(key.view),
            no_reseal=not reseal,
            passphrase=_content(self._passphrase),
        )
        self._calls.unary(self._stub.Recover, request, action=f"recover {name}")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        run_apart(self._calls.channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _content(secret: Secret | None) -> bytes | None:
    return None if secret is None else bytes(secret.view)
