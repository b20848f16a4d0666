"""containerd dies and comes back; volumes and what is in them do not mind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import UnavailableError
from cas.volumes.volumes import VolumeState
from tests.support.daemon import connect
from tests.support.images import layered_image
from tests.support.volumes import Recorder, Store, add_image, open_store, volume_name


@contextmanager
def _opened(daemon: Daemon) -> Iterator[Store]:
    """Connect anew, as a process does that starts after containerd."""
    settings = replace(daemon.settings, namespace="t")
    with connect(settings) as containerd:
        yield open_store(containerd, settings)


@pytest.fixture
def store(restartable_daemon: Daemon) -> Iterator[Store]:
    with _opened(restartable_daemon) as store:
        yield store


def test_volume_outlives_a_killed_containerd(store: Store, restartable_daemon: Daemon) -> None:
    """Mounted, it stays usable while containerd is away, and it is there afterwards."""
    reference, name = add_image(store, layered_image(3)), volume_name()
    root = store.volumes.prepare(name, reference, activate=True).rootfs
    restartable_daemon.kill()
    (root / "data").write_text("written while containerd was away")
    with pytest.raises(UnavailableError):
        store.volumes.deactivate(name)
    restartable_daemon.start()
    with _opened(restartable_daemon) as later:
        assert later.volumes.recover() == []
        assert later.volumes.deactivate(name).state is VolumeState.INACTIVE
        later.volumes.activate(name)
    assert (root / "data").read_text() == "written while containerd was away"
    assert (root / "top").read_text() == "2\n"


def test_prepare_containerd_killed_in_the_middle_can_be_repeated(
    store: Store, restartable_daemon: Daemon
) -> None:
    """The error says that containerd is away; the repetition makes the volume."""
    image = layered_image(4)
    reference, name = add_image(store, image), volume_name()
    third = image.layers[2].digest

    def kill(item: str) -> None:
        if item == third:
            restartable_daemon.kill()

    with pytest.raises(UnavailableError):
        store.volumes.prepare(name, reference, progress=Recorder(on_start=kill))
    assert list(store.volumes.iter_volumes()) == []
    restartable_daemon.start()
    with _opened(restartable_daemon) as later:
        later.volumes.recover()
        root = later.volumes.prepare(name, reference, activate=True).rootfs
        assert (root / "top").read_text() == "3\n"
        assert later.volumes.recover() == []


def test_remove_while_containerd_is_away_is_finished_later(
    store: Store, restartable_daemon: Daemon
) -> None:
    """The volume is not half removed: it is there, or gone and finished by recovery."""
    reference, name = add_image(store, layered_image(2)), volume_name()
    store.volumes.prepare(name, reference)
    restartable_daemon.kill()
    with pytest.raises(UnavailableError):
        store.volumes.remove(name)
    restartable_daemon.start()
    with _opened(restartable_daemon) as later:
        later.volumes.recover()
        later.volumes.remove(name)
        assert str(name) not in later.snapshots()
        assert list(later.volumes.iter_volumes()) == []
