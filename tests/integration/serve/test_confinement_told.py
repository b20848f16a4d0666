"""What the service says of its agents before anybody pulls."""

from dataclasses import replace

import pytest

from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture
def device_settings(own_settings: Settings) -> Settings:
    """A layout that belongs to the accounts of a device."""
    own_settings.persist.chmod(0o755)
    settings = replace(own_settings, owners=Settings(persist=own_settings.persist).owners)
    create_directories(settings, repair=True)
    return settings


def test_service_tells_once_what_confinement_lacks(own_settings: Settings) -> None:
    """A verifier that is configured to run as root lacks a user of its own."""
    owners = {**own_settings.owners, "downloader": "daemon", "verifier": "root"}
    settings = replace(own_settings, owners=owners)
    create_directories(settings, repair=True)
    with Service(settings) as service:
        service.start()
        told = [line for line in service.process.log.splitlines() if "lacks confinement" in line]

    assert len(told) == 1
    assert "agent=verifier wall=own-user" in told[0]


def test_service_refuses_to_start_without_confinement_that_is_required(
    own_settings: Settings,
) -> None:
    """And says which part is missing, of which agent."""
    settings = replace(own_settings, owners={**own_settings.owners, "verifier": "root"})
    create_directories(settings, repair=True)
    with Service(settings) as service:
        service.config.write_text("require_confinement = true\n" + service.config.read_text())
        service.begin()
        assert service.process.wait() == 9
        assert "the verifier lacks own-user" in service.process.log
        assert "[confinement]" in service.process.log
        assert service.containerd_pid is None


def test_service_that_lacks_nothing_says_nothing_and_starts_where_it_is_required(
    device_settings: Settings,
) -> None:
    """A kernel with everything, and the accounts of a device."""
    with Service(device_settings) as service:
        service.config.write_text("require_confinement = true\n" + service.config.read_text())
        service.start()
        assert "confinement" not in service.process.log
        assert "cannot be started" not in service.process.log
