"""A store whose qemu-img has no rights, a disk, and images of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from tests.support.disks import MIB, qemu_image
from tests.support.volumes import Store, open_store


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    """A store in the test's own namespace."""
    owners = {**settings.owners, "verifier": "nobody"}
    return open_store(containerd, replace(settings, owners=owners))


@pytest.fixture(scope="session")
def disk() -> bytes:
    """A disk of 4 MiB with something in front, in the middle and behind, and holes between."""
    data = bytearray(4 * MIB)
    data[:4] = b"boot"
    data[2 * MIB + 5 : 2 * MIB + 9] = b"half"
    data[-4:] = b"tail"
    return bytes(data)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, disk: bytes) -> Callable[..., bytes]:
    """The disk in any format; each made once."""
    made: dict[tuple[str, ...], bytes] = {}

    def make(disk_format: str, *options: str) -> bytes:
        key = (disk_format, *options)
        if key not in made:
            path = tmp_path_factory.mktemp("disk") / "image"
            made[key] = qemu_image(path, disk_format, *options, content=disk)
        return made[key]

    return make
