"""A clock of the test's own, and servers that do what they are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fetching import Fetching
from tests.support.hostile_server import HostileServer


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    """Fetches into a directory of the test's own, with a clock of its own."""
    return Fetching(tmp_path)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that does what it is told."""
    with HostileServer() as server:
        yield server


@pytest.fixture
def other_server() -> Iterator[HostileServer]:
    """Another host, as far as security is concerned."""
    with HostileServer() as server:
        yield server
