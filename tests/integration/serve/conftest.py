"""A store of the test's own and its service."""

from collections.abc import Iterator

import pytest

from cas.model.settings import Settings
from tests.support.service import Service


@pytest.fixture
def service(own_settings: Settings) -> Iterator[Service]:
    """A service that runs, to be stopped, killed and started again."""
    with Service(own_settings) as service:
        service.start()
        yield service
