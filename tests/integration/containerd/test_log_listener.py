"""The supervised containerd and whoever listens to its log."""

from collections.abc import Iterator

import pytest

from cas.containerd.daemon import Daemon
from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.daemon import connect, persist_directory, settings_for


@pytest.fixture
def own_settings(containerd_binary: str) -> Iterator[Settings]:
    """Settings of a store that nobody has started yet."""
    with persist_directory() as directory:
        settings = settings_for(directory, containerd_binary)
        create_directories(settings, repair=True)
        yield settings


def test_containerd_survives_the_end_of_whoever_reads_its_log(own_settings: Settings) -> None:
    """As in "cas containerd run 2>&1 | head": its own pipe must not break."""

    def gone(_line: str) -> None:
        raise BrokenPipeError

    with Daemon(own_settings, log=gone) as daemon:
        first = daemon.pid
        for number in range(3):
            with connect(own_settings) as containerd:
                containerd.namespaces.set_labels(f"n{number}", {"a": "b"})
        daemon.stop()
        daemon.start()
        assert daemon.is_running()
        assert daemon.pid != first
