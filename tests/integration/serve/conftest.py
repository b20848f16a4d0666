"""A store of the test's own and its service."""

from collections.abc import Iterator

import pytest

from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.daemon import persist_directory, settings_for
from tests.support.service import Service


@pytest.fixture
def own_settings(containerd_binary: str) -> Iterator[Settings]:
    """Settings of a store that nobody has started yet, with its layout."""
    with persist_directory() as directory:
        settings = settings_for(directory, containerd_binary)
        create_directories(settings, repair=True)
        yield settings


@pytest.fixture
def service(own_settings: Settings) -> Iterator[Service]:
    """A service that runs, to be stopped, killed and started again."""
    with Service(own_settings) as service:
        service.start()
        yield service
