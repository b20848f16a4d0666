"""A datastore that fails for a moment, asked through the downloader."""

from collections.abc import Iterator

import pytest

from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.errors import AuthenticationError
from cas.model.digest import Digest
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


def test_small_blob_of_a_registry_is_asked_for_again_after_a_temporary_failure_only(
    server: HostileServer, agent_settings: Settings
) -> None:
    """A registry tries questions again by itself, and leaves reading to its caller."""
    digest = Digest.of(b"words")
    server.on(f"/v2/a/blobs/{digest}", answer(503), resource(b"words"), answer(403))
    registry = SourceSettings(url=f"docker://127.0.0.1:{server.port}", plain_http=True)

    with Downloader(agent_settings, registry) as downloader:
        assert downloader.read(f"a@{digest}", limit=100) == b"words"
        with pytest.raises(AuthenticationError):
            downloader.read(f"a@{digest}", limit=100)

    assert len(server.requests) == 3
