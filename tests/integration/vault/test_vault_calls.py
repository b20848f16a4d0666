"""Vaults through the service, which answers for them while they are locked."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cas._gen.cas.v1 import (
    blobs_pb2,
    blobs_pb2_grpc,
    images_pb2,
    store_pb2,
    store_pb2_grpc,
    vault_pb2,
    volumes_pb2,
)
from cas._gen.cas.v1.vault_pb2_grpc import VaultStub
from cas.errors import (
    CasError,
    KeyMismatchError,
    PcrMismatchError,
    ServiceMismatchError,
    VaultLockedError,
)
from cas.model.vault_settings import VaultName
from cas.rpc.client import Client
from cas.rpc.client.vault import VaultClient
from cas.vault.unlock_record import UnlockMethod
from cas.vault.vaults import VaultState
from tests.support.images import layered_image
from tests.support.rpc import failing
from tests.support.service import Service, service_configuration
from tests.support.vaults import VaultMachine, secret
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_NAME = "example.com/test/image:1"
_ROOT = Path(__file__).parents[3]


def _health(service: Service, name: str) -> str:
    with service.channel() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_service_that_waits_for_its_vault_answers_and_can_open_it(
    device: VaultMachine, waiting: Service, vaults: VaultClient
) -> None:
    """Health and the vaults are served, all else is told that the vault is locked."""
    vaults.require_persist(device.settings.persist)
    with pytest.raises(ServiceMismatchError):
        vaults.require_persist(Path("/somewhere/else"))
    assert vaults.status() == device.vaults.status()
    assert [status.state for status in vaults.status()] == [VaultState.LOCKED] * 2
    assert (_health(waiting, ""), _health(waiting, "cas.v1.Vault")) == ("NOT_SERVING", "SERVING")
    with waiting.channel() as channel:
        for call in (
            lambda: store_pb2_grpc.StoreStub(channel).Version(store_pb2.VersionRequest()),
            lambda: list(blobs_pb2_grpc.BlobsStub(channel).List(blobs_pb2.ListBlobsRequest())),
            lambda: blobs_pb2_grpc.BlobsStub(channel).Upload(iter(())),
        ):
            with failing(grpc.StatusCode.FAILED_PRECONDITION, "vault-locked"):
                call()
    with pytest.raises(VaultLockedError):
        Client.connect(waiting.settings.service_socket)

    vaults.unlock()

    waiting.notify.wait_for("READY=1")
    waiting.wait_for_health("SERVING")
    with Client.connect(waiting.settings.service_socket) as client:
        assert [status.unlock_method for status in client.vaults.status()] == [UnlockMethod.TPM] * 2
        assert client.vaults.status() == device.vaults.status()


def test_vault_locked_under_a_running_service_is_unreadable_until_the_service_is_told_to_open_it(
    device: VaultMachine, waiting: Service, vaults: VaultClient, tmp_path: Path
) -> None:
    """Volumes down, containerd stopped, no call gets through; after unlock all comes back."""
    vaults.unlock()
    waiting.notify.wait_for("READY=1")
    name = volume_name()
    archive = layered_image(1, name=_NAME).write_oci_tar(tmp_path / "image.tar")
    (tmp_path / "blob").write_bytes(b"content")
    with Client.connect(waiting.settings.service_socket) as client:
        client.images.import_archive(archive)
        rootfs = client.volumes.prepare(name, _NAME, activate=True).rootfs
        (rootfs / "note").write_bytes(b"kept")
        waiting.notify.forget()

        client.vaults.lock()

        assert device.status().state is VaultState.LOCKED
        assert waiting.containerd_pid is None
        before = sorted(device.vault.rglob("*"))
        assert not any(part in str(path) for path in before for part in ("case", "note"))
        calls: list[Callable[[], object]] = [
            lambda: client.blobs.ingest(tmp_path / "blob"),
            lambda: list(client.images.iter_images()),
            lambda: client.volumes.get(name),
            lambda: client.volumes.activate(name),
            client.recover,
            client.check_store,
        ]
        for call in calls:
            with pytest.raises(VaultLockedError):
                call()
        waiting.notify.wait_for("STATUS=waiting for the vault")
        assert waiting.health() == "NOT_SERVING"
        assert sorted(device.vault.rglob("*")) == before

        client.vaults.unlock()

        waiting.wait_for_health("SERVING")
        assert (client.volumes.activate(name).rootfs / "note").read_bytes() == b"kept"
        client.vaults.lock()


def test_changed_pcrs_and_wrong_keys_are_told_as_the_library_tells_them(
    device: VaultMachine, vaults: VaultClient
) -> None:
    """The same errors with the same details; the right key opens it and is sealed anew."""
    device.vaults.unlock()
    key = device.escrow()
    vaults.lock()
    device.tpm.extend(7, b"an update")
    attempts: list[Callable[..., object]] = [
        lambda served: served.unlock([VaultName.VAULT]),
        lambda served: served.reseal([VaultName.VAULT]),
        lambda served: served.recover(VaultName.VAULT, secret(bytes(32))),
        lambda served: served.reseal([VaultName.VAULT], secret(bytes(32))),
    ]
    for attempt in attempts:
        told = []
        for served in (vaults, device.vaults):
            with pytest.raises(CasError) as caught:
                attempt(served)
            told.append((type(caught.value), caught.value.message))
        assert told[0] == told[1]
        assert told[0][0] in (PcrMismatchError, KeyMismatchError)
    assert vaults.status()[0].differing_pcrs == (7,)
    with secret(key) as right:
        vaults.recover(VaultName.VAULT, right, reseal=False)
        assert vaults.status()[0].unlock_method is UnlockMethod.RECOVERED
        vaults.reseal([VaultName.VAULT], right)
    vaults.lock([VaultName.VAULT], wait_seconds=60)
    vaults.init()
    assert [status.state for status in device.vaults.status()] == [VaultState.OPEN] * 2


def test_calls_that_are_under_way_end_when_the_vault_is_locked(
    waiting: Service, vaults: VaultClient
) -> None:
    """An upload that has a file in the vault open, and a caller that does not go on."""
    vaults.unlock()
    waiting.notify.wait_for("READY=1")
    vault = waiting.settings.layout.vault
    go_on = threading.Event()

    def requests() -> Iterator[blobs_pb2.UploadBlobRequest]:
        yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader())
        for _ in range(16):
            yield blobs_pb2.UploadBlobRequest(data=bytes(256 * 1024))
        go_on.wait()

    with waiting.channel() as channel:
        call = blobs_pb2_grpc.BlobsStub(channel).Upload.future(requests())
        wait_for(lambda: bool(_open_below(waiting.process.pid, vault)))
        try:
            vaults.lock()
            assert [status.state for status in vaults.status()] == [VaultState.LOCKED] * 2
            assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.FAILED_PRECONDITION)
        finally:
            go_on.set()


def _open_below(process: int, directory: Path) -> list[str]:
    names = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(str(link.readlink()))
    return [name for name in names if name.startswith(f"{directory}/")]


def test_no_call_gets_through_to_a_locked_vault(device: VaultMachine, waiting: Service) -> None:
    """Every declared one, those of the vaults apart: refused before its request is looked at."""
    before = sorted(device.vault.rglob("*"))
    with waiting.channel() as channel:
        for method in _methods(blobs_pb2, images_pb2, store_pb2, volumes_pb2):
            path = f"/{method.containing_service.full_name}/{method.name}"
            call: Any = channel.stream_stream(path)
            with failing(grpc.StatusCode.FAILED_PRECONDITION, "vault-locked"):
                list(call(iter([b""])))
    assert sorted(device.vault.rglob("*")) == before


def _methods(*documents: Any) -> Iterator[MethodDescriptor]:
    for document in documents:
        for service in document.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def test_nonsense_is_refused_as_usage(waiting: Service) -> None:
    """And repeats nothing of a key."""
    with waiting.channel() as channel:
        stub = VaultStub(channel)
        for ask in (
            lambda: stub.Unlock(vault_pb2.UnlockVaultRequest(names=["cellar"])),
            lambda: stub.Lock(vault_pb2.LockVaultRequest(wait=Duration(seconds=-1))),
            lambda: stub.Reseal(vault_pb2.ResealVaultRequest(key=bytes(32))),
            lambda: stub.Recover(vault_pb2.RecoverVaultRequest(key=bytes(32))),
        ):
            with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
                ask()


def test_vault_locked_while_the_service_opens_its_store_is_waited_for_again(
    device: VaultMachine, waiting: Service, vaults: VaultClient
) -> None:
    """Whatever fails because of that ends nothing."""
    for _ in range(3):
        vaults.unlock()
        wait_for(lambda: waiting.containerd_pid is not None)
        device.vaults.lock()
    vaults.unlock()
    waiting.notify.wait_for("READY=1")
    assert waiting.process.is_running()


def test_command_goes_through_the_service_when_told_to(
    device: VaultMachine, waiting: Service, tmp_path: Path
) -> None:
    """Its answers are the same, and the service's log tells of the calls and of no key."""
    config = service_configuration(tmp_path, device.settings, service="always")
    device.vaults.unlock()
    key = device.escrow()

    def cas(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "cas", "--config", str(config), "vault", *arguments]
        return subprocess.run(command, cwd=_ROOT, input=given, capture_output=True, check=False)

    assert cas("lock").returncode == 0
    assert [vault["state"] for vault in json.loads(cas("status", "--json").stdout)] == [
        "locked",
        "locked",
    ]
    wrong = cas("recover", "-", given=bytes(32))
    assert (wrong.returncode, b"[key-mismatch]" in wrong.stderr) == (7, True)
    assert cas("recover", "-", given=key).returncode == 0
    assert cas("unlock").returncode == 0
    assert cas("reseal", "vault").returncode == 0
    assert device.status().state is VaultState.OPEN
    assert "method=/cas.v1.Vault/Recover" in waiting.process.log
    assert key.hex() not in waiting.process.log
