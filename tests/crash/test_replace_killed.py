"""A volume in the place of the one before, killed at each step where there is no room for both.

Every state is one from which somebody comes to a whole volume: the old one is there with its data,
or the same call makes the new one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cas.errors import NoSpaceError
from cas.model.disk.record import DiskRequest
from tests.support.daemon import connect, private_daemon, settings_for, unmount_below
from tests.support.disks import MIB, add_disk
from tests.support.images import build_image, layered_image
from tests.support.layers import Compression, file
from tests.support.loopfs import LoopFileSystem
from tests.support.volume_kills import forget_layers, killed_at_each_step, recover
from tests.support.volumes import Store, add_image, open_store, volume_name

_DISK_BYTES = 192 * MIB
_DATA = os.urandom(8 * MIB)
_NEW_DATA = b"new" + _DATA[3:]
_STRIDE = 8
"""Meets, of a container, the removal of the old volume and the unpacking of the new one."""
_ROOM_BYTES = 6 * MIB
"""Too little for a volume with such data beside another one."""


class _Replaced(ABC):
    """A volume, an image of the same size, and a file system that is nearly full."""

    def __init__(self, store: Store, loop: LoopFileSystem) -> None:
        self.store, self.loop = store, loop
        self.old = volume_name()
        self.new = replace(self.old, generation=1)

    @property
    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """What is killed, as ``tests.support.volume_worker`` has it."""

    def renew(self) -> None:
        """Have the old volume and no new one, and no room for it."""
        self.loop.make_room()
        self.store.volumes.remove(self.new)
        forget_layers(self.store)
        self.make_old()
        self.loop.leave(self.store.settings.limits.min_free_bytes + _ROOM_BYTES)

    @abstractmethod
    def make_old(self) -> None:
        """Make the old volume."""

    @abstractmethod
    def make_new(self, *, in_place: bool) -> None:
        """Do the same here, or beside the old volume."""

    @abstractmethod
    def is_whole(self, *, new: bool) -> bool:
        """Whether a volume holds what it should."""

    def generations(self) -> list[int]:
        return [status.name.generation for status in self.store.volumes.iter_volumes()]


class _Container(_Replaced):
    def __init__(self, store: Store, loop: LoopFileSystem) -> None:
        super().__init__(store, loop)
        layer = [file("data", _DATA)]
        image = build_image([layer], name="example.com/new:1", compression=Compression.NONE)
        self._large, self._small = add_image(store, image), add_image(store, layered_image(1))

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("replace", str(self.new), self._large)

    def make_old(self) -> None:
        root = self.store.volumes.prepare(self.old, self._small, activate=True).rootfs
        (root / "old").write_bytes(_DATA)

    def make_new(self, *, in_place: bool) -> None:
        self.store.volumes.prepare(self.new, self._large, replace=in_place)

    def is_whole(self, *, new: bool) -> bool:
        name, path = (self.new, "data") if new else (self.old, "old")
        return (self.store.volumes.activate(name).rootfs / path).read_bytes() == _DATA


class _Disk(_Replaced):
    def __init__(self, store: Store, loop: LoopFileSystem) -> None:
        super().__init__(store, loop)
        self._sources = add_disk(store, _DATA), add_disk(store, _NEW_DATA)

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("replace-disk", str(self.new), self._sources[1], str(len(_DATA)))

    def make_old(self) -> None:
        self.store.volumes.prepare_disk(self.old, self._request(0))

    def make_new(self, *, in_place: bool) -> None:
        self.store.volumes.prepare_disk(self.new, self._request(1), replace=in_place)

    def _request(self, generation: int) -> DiskRequest:
        return DiskRequest(self._sources[generation], size=len(_DATA))

    def is_whole(self, *, new: bool) -> bool:
        data = self.store.volumes.get(self.new if new else self.old).rootfs.read_bytes()
        return data == (_NEW_DATA if new else _DATA)


@pytest.fixture
def small(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> Iterator[tuple[Store, LoopFileSystem]]:
    """A store on a small file system."""
    loop = loop_ext4(_DISK_BYTES)
    settings = settings_for(loop.path, containerd_binary)
    with private_daemon(settings), connect(settings) as containerd:
        yield open_store(containerd, settings), loop
        unmount_below(settings.persist)


@pytest.fixture
def stride(*, every_step: bool) -> int:
    return 1 if every_step else _STRIDE


@pytest.mark.slow
@pytest.mark.timeout(3600)  # for every step
@pytest.mark.parametrize("kind", [_Container, _Disk])
@pytest.mark.parametrize("recovered", [True, False], ids=["recovered", "repeated"])
def test_replacement_killed_at_any_step_leaves_the_old_or_makes_the_new(
    small: tuple[Store, LoopFileSystem], kind: type[_Replaced], stride: int, *, recovered: bool
) -> None:
    """After a recovery, and by repetition alone."""
    store, loop = small
    case = kind(store, loop)
    case.renew()
    with pytest.raises(NoSpaceError):
        case.make_new(in_place=False)
    gone = 0
    for _ in killed_at_each_step(store, *case.arguments, stride=stride):
        if recovered:
            recover(store)
        if case.generations() == [0]:
            assert case.is_whole(new=False)
            continue
        gone += 1
        assert case.generations() in ([], [1])
        case.make_new(in_place=True)
        assert case.generations() == [1]
        assert case.is_whole(new=True)
        recover(store)
        case.renew()
    assert gone, "it was never killed after the old one went"
    assert case.generations() == [1]
    assert case.is_whole(new=True)
