"""A service on the session's containerd, in a namespace of the test's own, and clients of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from cas.rpc.client import Client
from tests.support.serving import server_of


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory whose files the service reads."""
    directory = tmp_path / "allowed"
    directory.mkdir()
    return directory


@pytest.fixture(params=["allowed", "elsewhere"])
def directory(request: pytest.FixtureRequest, allowed: Path, tmp_path: Path) -> Path:
    """Where the service reads files and archives itself, and where they have to be sent."""
    if request.param == "allowed":
        return allowed
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return elsewhere


@pytest.fixture
def served(settings: Settings, allowed: Path) -> Settings:
    """Settings of the store, its service's socket among them."""
    return replace(
        settings,
        allowed_directories=(allowed,),
        service_address=settings.layout.run / f"{settings.namespace}.sock",
    )


@pytest.fixture
def case(served: Settings) -> Iterator[Case]:
    """The store, opened directly."""
    with Case.open(served) as case:
        yield case


@pytest.fixture
def client(case: Case, served: Settings) -> Iterator[Client]:
    """A client of a service that runs."""
    with server_of(case, served.service_socket), Client.connect(served.service_socket) as client:
        yield client
