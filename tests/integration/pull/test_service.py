"""Pulling through the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import InvalidNameError, SourceNotFoundError
from cas.rpc.client.client import Client
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas
from tests.support.hostile_registry import HostileRegistry
from tests.support.images import layered_image
from tests.support.rpc import Service, serve


class Told:
    """Actions that progress told of."""

    def __init__(self) -> None:
        self.actions: set[str] = set()

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.actions.add(action)

    def advance(self, action: str, item: str, amount: int) -> None: ...

    def finish(self, action: str, item: str) -> None: ...


@pytest.fixture
def service(case: Case, tmp_path: Path) -> Iterator[Service]:
    with serve(case, tmp_path) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client.connect(service.socket) as client:
        yield client


def test_pull_through_the_service_is_the_librarys(
    client: Client, case: Case, registry: HostileRegistry
) -> None:
    """The same result, with progress on the way."""
    image = layered_image()
    reference = registry.publish(image)
    told = Told()

    pulled = client.images.pull(reference, name="mine", progress=told)

    assert str(pulled.record.target.digest) == image.digest
    assert pulled.downloaded == sum(map(len, image.blobs.values()))
    assert case.images.get("mine").target == pulled.record.target
    assert "pull" in told.actions
    assert left_by(case) == NOTHING


def test_errors_of_a_pull_keep_their_class(client: Client, registry: HostileRegistry) -> None:
    """Whichever process met them, of three."""
    with pytest.raises(SourceNotFoundError):
        client.images.pull(f"{registry.address}/absent:v1")
    with pytest.raises(InvalidNameError):
        client.images.pull("not a reference")


def test_command_that_must_use_the_service_pulls_through_it(
    service: Service,
    case: Case,
    registry: HostileRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints what it prints without one."""
    reference = registry.publish(layered_image())
    cas = Cas(case.settings, tmp_path, capsys)
    through = ("--service", "always", "--service-address", service.socket)

    pulled = cas(*through, "image", "pull", f"docker://{reference}")

    assert (pulled.status, pulled.out) == (0, f"{reference}\n"), pulled
    assert case.images.exists(reference)
