"""Servers that datastores are fetched from."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

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


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A private certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS, signed by the private authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context
