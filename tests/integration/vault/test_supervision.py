"""containerd and the service wait for the vault, make way for its locking, and come back."""

from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.root_directory import find_root_holder
from cas.errors import VaultLockedError
from cas.rpc.client import Client
from cas.vault.vaults import VaultState
from tests.support.images import layered_image
from tests.support.service import Service, StayingProcess, service_configuration
from tests.support.vaults import VaultMachine
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_NAME = "example.com/test/image:1"
_OF_THE_STORE = ("cas_volumes", "cas_blob", "cas_free")


def _runs(device: VaultMachine) -> bool:
    return find_root_holder(device.settings.layout.case) is not None


def test_containerd_runs_exactly_while_the_vault_is_open(
    device: VaultMachine, tmp_path: Path
) -> None:
    """It waits for the first opening, stops for the locking, and starts again by itself."""
    device.vaults.lock()
    config = service_configuration(tmp_path, device.settings)
    with StayingProcess(config, "containerd", "run") as process:
        wait_for(lambda: "waiting for the vault" in process.log)
        for _ in range(2):
            device.vaults.unlock()
            with Case.open(device.settings) as case:
                assert list(case.images.iter_images()) == []
            device.vaults.lock()
            assert not _runs(device)
            assert device.status().state is VaultState.LOCKED
            assert process.is_running()


def test_clear_volumes_can_be_written_while_the_vault_is_locked(device: VaultMachine) -> None:
    """What needs no encryption does not wait."""
    device.vaults.lock()
    path = device.settings.layout.clear_volumes / "file"
    path.write_bytes(b"clear")
    assert path.read_bytes() == b"clear"


def test_service_outlives_the_locking_of_the_vault_under_it(
    device: VaultMachine, tmp_path: Path
) -> None:
    """Volumes go down, writers are told, nothing comes into being; after unlock all goes on.

    What cannot be seen meanwhile is in no metric: nothing would look like a loss.
    """
    name = volume_name()
    archive = layered_image(1, name=_NAME).write_oci_tar(tmp_path / "image.tar")
    (tmp_path / "blob").write_bytes(b"content")
    device.vaults.lock()
    with Service(device.settings) as service:
        service.begin("--metrics-address", device.settings.persist / "metrics.sock")
        wait_for(lambda: "STATUS=waiting for the vault" in service.notify.listen())
        device.vaults.unlock()
        service.notify.wait_for("READY=1")
        with Case.open(device.settings) as case:
            case.images.import_archive(archive)
            rootfs = case.volumes.prepare(name, _NAME, activate=True).rootfs
        (rootfs / "note").write_bytes(b"kept")
        assert service.tells("cas_volumes 1.0")
        device.vaults.lock()
        assert device.status().state is VaultState.LOCKED
        assert not [line for line in service.metrics() if line.startswith(_OF_THE_STORE)]
        before = sorted(device.vault.rglob("*"))
        with Client.connect(service.settings.service_socket) as client:
            with pytest.raises(VaultLockedError):
                client.blobs.ingest(tmp_path / "blob")
            assert sorted(device.vault.rglob("*")) == before
            service.wait_for_health("NOT_SERVING")
            device.vaults.unlock()
            service.wait_for_health("SERVING")
            assert service.tells("cas_volumes 1.0")
            assert not service.tells("cas_blobs 0.0")
            client.blobs.ingest(tmp_path / "blob")
            client.volumes.activate(name)
        assert (rootfs / "note").read_bytes() == b"kept"
        device.vaults.lock()
