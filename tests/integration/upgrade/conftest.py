"""Devices whose vault is on the file system of the old places, and on another one."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import persist_directory
from tests.support.loopfs import LoopFileSystem
from tests.support.old_device import OldDevice, mounted_vault

__all__ = ["apart", "bound", "device", "together"]


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
    with persist_directory() as directory, mounted_vault(directory, disk.path):
        yield OldDevice(directory)


@pytest.fixture
def bound() -> Iterator[OldDevice]:
    """One file system under two mounts, between which no rename leads."""
    with persist_directory() as directory:
        (directory / "m").mkdir()
        (directory / "elsewhere").mkdir()
        with mounted_vault(directory / "m", directory / "elsewhere"):
            yield OldDevice(directory / "m")


@pytest.fixture(params=["together", "apart", "bound"])
def device(request: pytest.FixtureRequest) -> OldDevice:
    """Either."""
    made = request.getfixturevalue(request.param)
    assert isinstance(made, OldDevice)
    return made
