"""A namespace that lost its records does not take those of others with it."""

from dataclasses import replace

import pytest

from cas.containerd.daemon import Daemon
from cas.errors import InUseError
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS
from cas.store.check.rebuild import Rebuild
from cas.store.sentinel import Sentinel
from tests.support.daemon import connect
from tests.support.images import layered_image
from tests.support.volumes import add_image, open_store, volume_name


def test_rebuild_beside_other_namespaces_leaves_their_snapshots(restartable_daemon: Daemon) -> None:
    """A store's mark in a namespace that is empty now is no proof that the database is."""
    settings = restartable_daemon.settings
    good = open_store(connect(settings), settings)
    Sentinel(good.backing).ensure()
    name = volume_name()
    image = layered_image(2)
    add_image(good, image)
    good.volumes.prepare(name, image.name)
    other = replace(settings, namespace="other")
    lost = open_store(connect(other), other)
    lost.settings.layout.store_marker("other").write_bytes(b"{}")
    rebuild = Rebuild(lost.backing, lost.images.platform, lost.locks, lost.leasing)
    with pytest.raises(InUseError, match=settings.namespace):
        rebuild.run(Cancellation(), NO_PROGRESS)
    assert good.volumes.activate(name).problem is None
    good.volumes.deactivate(name)
