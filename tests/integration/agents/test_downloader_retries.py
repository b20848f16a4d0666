"""A datastore that fails for a moment, asked through the downloader."""

from collections.abc import Iterator

import pytest

from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.model.settings import Settings
from tests.support.fetching import BODY
from tests.support.hostile_server import HostileServer, answer, resource


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that does as it is told."""
    with HostileServer() as server:
        yield server


def test_size_and_small_file_are_asked_for_again_after_a_temporary_failure(
    server: HostileServer, agent_settings: Settings
) -> None:
    """As a large transfer is: one hiccup fails no pull."""
    server.on("/size", answer(503), resource(BODY))
    server.on("/signature", answer(503), resource(b"words"))

    with Downloader(agent_settings, SourceSettings(url=server.url)) as downloader:
        assert downloader.stat("size").size == len(BODY)
        assert downloader.read("signature", limit=100) == b"words"
