"""A store in the test's own namespace, with its sentinel."""

from collections.abc import Iterator

import pytest

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from cas.store.account.inventory import OtherContent
from cas.store.sentinel import Sentinel
from tests.support.volumes import Store, open_store


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    store = open_store(containerd, settings)
    Sentinel(store.backing).ensure()
    return store


@pytest.fixture
def others(containerd: Containerd, settings: Settings) -> OtherContent:
    def content() -> Iterator[tuple[str, object]]:
        for name in containerd.namespaces.iter_namespaces():
            if name != settings.namespace:
                yield name, containerd.in_namespace(name).content

    return content  # type: ignore[return-value]  # the adapter fits the protocol
