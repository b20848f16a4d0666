"""Volumes of a store whose containerd database was emptied."""

import shutil

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import StoreMetadataLostError
from cas.store.sentinel import Sentinel
from tests.support.daemon import connect
from tests.support.images import layered_image
from tests.support.volumes import Store, add_image, open_store, volume_name


def _open(daemon: Daemon) -> Store:
    return open_store(connect(daemon.settings), daemon.settings)


def test_remove_in_a_lost_store_is_refused(restartable_daemon: Daemon) -> None:
    """The volume's record is needed to give its image the name back."""
    store = _open(restartable_daemon)
    Sentinel(store.backing).ensure()
    name = volume_name()
    store.volumes.prepare(name, add_image(store, layered_image(1)))
    restartable_daemon.stop()
    shutil.rmtree(restartable_daemon.settings.layout.case / "io.containerd.metadata.v1.bolt")
    restartable_daemon.start()

    store = _open(restartable_daemon)
    with pytest.raises(StoreMetadataLostError):
        store.volumes.remove(name, force=True)
    assert [record.name for record in store.volumes.iter_records()] == [name]
