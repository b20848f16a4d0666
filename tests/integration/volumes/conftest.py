"""Fixtures of the volume tests: a wired store with an image in it."""

import pytest

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from tests.support.images import BuiltImage, busybox_image
from tests.support.volumes import Store, add_image, open_store


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    """A store in the test's own namespace."""
    return open_store(containerd, settings)


@pytest.fixture
def image(store: Store) -> BuiltImage:
    """A runnable image of three layers, in the store."""
    built = busybox_image()
    add_image(store, built)
    return built
