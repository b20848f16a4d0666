"""Devices whose vault is on the file system of the old places, and on another one."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import persist_directory
from tests.support.loopfs import LoopFileSystem
from tests.support.old_device import OldDevice, mounted_vault

__all__ = ["apart", "device", "together"]


@pytest.fixture
def together() -> Iterator[OldDevice]:
    """Old and new places on one file system."""
    with persist_directory() as directory:
        (directory / "vault").mkdir()
        yield OldDevice(directory)


@pytest.fixture
def apart(loop_ext4: Callable[[int], LoopFileSystem]) -> Iterator[OldDevice]:
    """The vault on a file system of its own."""
    disk = loop_ext4(192 * 1024 * 1024)
    with persist_directory() as directory, mounted_vault(directory, disk):
        yield OldDevice(directory)


@pytest.fixture(params=["together", "apart"])
def device(request: pytest.FixtureRequest) -> OldDevice:
    """Either."""
    made = request.getfixturevalue(request.param)
    assert isinstance(made, OldDevice)
    return made
