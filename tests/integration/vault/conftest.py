"""A device whose store lies in an open vault, with its containerd."""

from collections.abc import Callable, Iterator

import pytest

from cas.containerd.daemon import Daemon
from tests.support.daemon import unmount_below
from tests.support.loopfs import LoopFileSystem
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import VaultMachine

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
