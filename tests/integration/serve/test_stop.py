"""The end of a service that has something to do: calls finish, or are undone."""

import io
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.errors import CasError, ServiceUnavailableError
from cas.model.settings import Settings
from cas.rpc.client import Client
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import BuiltImage, layered_image
from tests.support.service import Service
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


class _Gated:
    """An archive whose second half comes when it is let through."""

    def __init__(self, archive: bytes) -> None:
        self._bytes = io.BytesIO(archive)
        self._half = len(archive) // 2
        self._gate = threading.Event()
        self.waits = threading.Event()

    def read(self, size: int) -> bytes:
        """Give the next bytes; wait at the half."""
        left = self._half - self._bytes.tell()
        if left > 0:
            return self._bytes.read(min(size, left))
        self.waits.set()
        self._gate.wait()
        return self._bytes.read(size)

    def let_through(self) -> None:
        """Wait no more."""
        self._gate.set()


@pytest.fixture
def image() -> BuiltImage:
    """A small image that comes in several messages."""
    return layered_image(5).named("docker.io/library/slow:1")


@pytest.fixture
def archive(image: BuiltImage, own_settings: Settings) -> Iterator[_Gated]:
    """The image, held up in the middle."""
    gated = _Gated(image.write_oci_tar(own_settings.persist / "image.tar").read_bytes())
    yield gated
    gated.let_through()


@contextmanager
def _opened(settings: Settings) -> Iterator[Case]:
    """The store, with a containerd of the test's own."""
    with Daemon(settings), Case.open(settings) as case:
        yield case


def _import(client: Client, archive: _Gated) -> list[str] | CasError:
    try:
        return [record.name for record in client.images.import_archive(archive)]
    except CasError as error:
        return error


def test_running_call_is_finished_and_new_ones_are_refused(
    own_settings: Settings, archive: _Gated, image: BuiltImage
) -> None:
    """Who was served is served to the end; who comes late is told to come again."""
    with Service(own_settings) as service:
        service.start_told("--stop-seconds", WAIT_SECONDS)
        with (
            Client.connect(own_settings.service_socket) as client,
            ThreadPoolExecutor() as threads,
        ):
            running = threads.submit(_import, client, archive)
            _wait_until_it_runs(service, archive)
            service.process.signal(signal.SIGTERM)
            wait_for(lambda: _is_refused(client))
            archive.let_through()
            assert running.result() == [image.name], service.process.log
        assert service.process.wait() == 0
    with _opened(own_settings) as case:
        assert str(case.images.get(image.name).target.digest) == image.digest
        assert list(case.check.run(read_data=True)) == []


def _wait_until_it_runs(service: Service, archive: _Gated) -> None:
    assert archive.waits.wait(WAIT_SECONDS)
    wait_for(lambda: service.tells('cas_rpc_running{method="/cas.v1.Images/Upload"} 1.0'))


def _is_refused(client: Client) -> bool:
    try:
        list(client.volumes.iter_volumes())
    except ServiceUnavailableError as error:
        return error.temporary
    return False


def test_call_that_outlasts_the_grace_is_broken_off_and_undone(
    own_settings: Settings, archive: _Gated, image: BuiltImage
) -> None:
    """Nothing is half done, and the status is 0 all the same: it was asked to stop."""
    with Service(own_settings) as service:
        service.start_told("--stop-seconds", 0.2)
        with (
            Client.connect(own_settings.service_socket) as client,
            ThreadPoolExecutor() as threads,
        ):
            running = threads.submit(_import, client, archive)
            _wait_until_it_runs(service, archive)
            service.process.signal(signal.SIGTERM)
            assert service.process.wait() == 0
            archive.let_through()
            error = running.result()
            assert isinstance(error, CasError)
            assert error.temporary
    with _opened(own_settings) as case:
        assert not case.images.exists(image.name)
        assert list(case.backing.leases.iter_leases()) == []
        assert list(case.backing.content.iter_ingests()) == []
        assert list(case.check.run(read_data=True)) == []
