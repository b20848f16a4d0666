"""Pulling through the service."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cas.app import Case
from cas.errors import (
    DigestMismatchError,
    InvalidNameError,
    SizeMismatchError,
    SourceNotFoundError,
    UsageError,
)
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.rpc.client.client import Client
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas, write_configuration
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.images import layered_image
from tests.support.rpc import Service, serve

DISK = b"a disk of some kind"
_USER = _GROUP = 65534
"""Nobody, who shall be a member of the service's group."""


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


def test_file_through_the_service_is_the_librarys(
    client: Client, case: Case, registry: HostileRegistry
) -> None:
    """The same result, with progress on the way; the second time without a download."""
    url, told = registry.on("/disk.img", resource(DISK)), Told()

    first = client.blobs.pull(url, Digest.of(DISK), media_type="a/b", progress=told)
    second = client.blobs.pull(url, Digest.of(DISK))

    assert (first.digest, first.size, first.created) == (Digest.of(DISK), len(DISK), True)
    assert not second.created
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]
    assert b"".join(case.blobs.read(Digest.of(DISK))) == DISK
    assert "download" in told.actions
    assert left_by(case) == NOTHING


def test_file_that_the_service_cannot_have_keeps_the_class_of_its_error(
    client: Client, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """A file of the service's machine among them: it reads more than its callers may."""
    path = tmp_path / "disk.img"
    path.write_bytes(DISK)
    url = registry.on("/disk.img", resource(b"other"))

    with pytest.raises(DigestMismatchError):
        client.blobs.pull(url, Digest.of(b"mine!"))
    with pytest.raises(SizeMismatchError):
        client.blobs.pull(url, Digest.of(DISK), size=len(DISK))
    with pytest.raises(SourceNotFoundError):
        client.blobs.pull(f"{registry.url}/absent", Digest.of(DISK))
    for scheme in ("file://", "FILE://", " file://", "fi\tle://", "file:"):
        with pytest.raises(UsageError):
            client.blobs.pull(f"{scheme}{path}", Digest.of(DISK))

    assert not case.blobs.exists(Digest.of(DISK))
    assert left_by(case) == NOTHING


def test_command_that_must_use_the_service_downloads_through_it(
    service: Service,
    case: Case,
    registry: HostileRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints what it prints without one."""
    url = registry.on("/disk.img", resource(DISK))
    cas = Cas(case.settings, tmp_path, capsys)
    through = ("--service", "always", "--service-address", service.socket)

    result = cas(*through, "download", url, "--digest", Digest.of(DISK))

    assert (result.status, result.out) == (0, f"{Digest.of(DISK)}\n"), result
    assert case.blobs.exists(Digest.of(DISK))


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


def test_pull_by_somebody_else_than_root_goes_through_the_service(
    pull_settings: Settings, registry: HostileRegistry
) -> None:
    """He can neither open the store nor start the agents; nothing has to be told to the command."""
    reference = registry.publish(layered_image())
    with TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        settings = replace(pull_settings, service_address=place / "cas.sock")
        config = write_configuration(place, settings)
        config.write_text(f'service_address = "{place}/cas.sock"\n{config.read_text()}')
        with Case.open(settings) as case, serve(case, place, gid=_GROUP):
            done = subprocess.run(
                ["setpriv", f"--reuid={_USER}", f"--regid={_GROUP}", "--clear-groups",
                 sys.executable, "-m", "cas", "--config", config, "image", "pull", reference],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (0, f"{reference}\n"), done.stderr
            assert case.images.exists(reference)
