"""A device whose store lies in an open vault, with its containerd."""

from collections.abc import Callable, Iterator

import pytest

from cas.containerd.daemon import Daemon
from cas.rpc.client.vault import VaultClient
from tests.support.daemon import unmount_below
from tests.support.loopfs import LoopFileSystem
from tests.support.service import Service
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import VaultMachine
from tests.support.waiting import wait_for

_DISK_BYTES = 512 * 1024 * 1024
"""Sparse; a store keeps back what it needs to remove things on a full disk."""


@pytest.fixture
def device(
    loop_ext4: Callable[..., LoopFileSystem], software_tpm: SoftwareTpm, containerd_binary: str
) -> Iterator[VaultMachine]:
    """A device with open vaults and nothing in them but the layout."""
    device = VaultMachine(loop_ext4(_DISK_BYTES, "encrypt"), software_tpm, containerd_binary)
    device.vaults.init()
    yield device
    unmount_below(device.settings.persist)


@pytest.fixture
def device_daemon(device: VaultMachine) -> Iterator[Daemon]:
    """Its containerd, started; to be stopped and started as the test likes."""
    with Daemon(device.settings) as daemon:
        yield daemon


@pytest.fixture
def waiting(device: VaultMachine) -> Iterator[Service]:
    """A service that was started while the vault was locked, and waits for it."""
    device.vaults.lock()
    with Service(device.settings) as service:
        vault = device.settings.vault
        with service.config.open("a") as config:
            config.write(f'[vault]\npcrs = {list(vault.pcrs)}\ntcti = "{vault.tcti}"\n')
        service.begin()
        wait_for(lambda: "STATUS=waiting for the vault" in service.notify.listen())
        yield service


@pytest.fixture
def vaults(waiting: Service) -> Iterator[VaultClient]:
    """The vaults, through the service."""
    with VaultClient.connect(waiting.settings.service_socket) as client:
        yield client
