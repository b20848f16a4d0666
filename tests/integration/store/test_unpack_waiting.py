"""An unpack that waits for another one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cas.containerd.client import Containerd
from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import layered_image
from tests.support.volumes import add_image, open_store


def test_unpack_cancelled_while_another_has_the_layer_ends(
    containerd: Containerd, settings: Settings
) -> None:
    """Whoever waits for somebody else's layer of an hour can still be stopped."""
    store = open_store(containerd, settings)
    resolved = store.images.resolve(add_image(store, layered_image(1)))
    cancel, ended = Cancellation(), threading.Event()

    def unpack() -> None:
        try:
            with store.leasing.hold("test") as lease:
                store.unpack.unpack(resolved, lease, cancel=cancel)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        with store.locks.chain(resolved.layers[0].chain_id):
            waiting = pool.submit(unpack)
            assert not ended.wait(0.2)
            cancel.set()
            assert ended.wait(WAIT_SECONDS)
        with pytest.raises(InterruptedOperationError):
            waiting.result()
    assert store.snapshots() == set()
