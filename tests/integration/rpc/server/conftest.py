"""A containerd that these tests may stop, with a service on it, for all tests of a file."""

from collections.abc import Iterator

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from tests.support.daemon import persist_directory, private_daemon, settings_for
from tests.support.rpc import Service, serve


@pytest.fixture(scope="module")
def mortal_daemon(containerd_binary: str) -> Iterator[Daemon]:
    """A containerd that may be killed; whoever needs it starts it again."""
    with (
        persist_directory() as directory,
        private_daemon(settings_for(directory, containerd_binary)) as daemon,
    ):
        yield daemon


@pytest.fixture(scope="module")
def mortal_service(mortal_daemon: Daemon) -> Iterator[Service]:
    """A service on it."""
    settings = mortal_daemon.settings
    with Case.open(settings) as case, serve(case, settings.layout.verifier) as service:
        yield service
