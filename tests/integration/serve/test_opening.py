"""Between the service's start and the moment in which its store is open."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest

from cas.errors import ServiceOpeningError
from cas.model.settings import Settings
from cas.rpc.client import Client
from tests.support.daemon import WAIT_SECONDS
from tests.support.service import Service, held_back
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def opening(own_settings: Settings) -> Iterator[Service]:
    """A service that answers, and whose containerd does not come up while a file is there."""
    (own_settings.persist / "hold").touch()
    with Service(held_back(own_settings)) as service:
        service.begin()
        wait_for(lambda: service.health() == "NOT_SERVING")
        yield service
        _release(service)


def _release(service: Service) -> None:
    (service.settings.persist / "hold").unlink(missing_ok=True)


def _read_until(terminal: int, words: bytes) -> None:
    """Read until they have come, in whatever pieces."""
    said = b""
    while words not in said:
        assert select.select([terminal], [], [], WAIT_SECONDS)[0], said
        said += os.read(terminal, 1000)


@contextmanager
def _on_a_terminal(service: Service) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``cas version`` through the service, with its errors on a terminal, to be read there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cas", "--config", str(service.config), "--service=always"]
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        os.fdopen(theirs, "wb", buffering=0) as given,
        subprocess.Popen(
            [*command, "version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=given
        ) as process,
    ):
        yield process, terminal.fileno()
        process.kill()


def test_client_and_command_wait_for_a_service_that_opens_its_store(opening: Service) -> None:
    """They are told of the wait and then go on; whoever does not want to wait hears why."""
    socket, told = opening.settings.service_socket, Event()
    with pytest.raises(ServiceOpeningError):
        Client.connect(socket, opening_seconds=0)
    with ThreadPoolExecutor(1) as pool, _on_a_terminal(opening) as (command, terminal):
        connecting = pool.submit(
            Client.connect, socket, opening_seconds=WAIT_SECONDS, on_wait=told.set
        )
        _read_until(terminal, b"waiting for the service")
        assert told.wait(WAIT_SECONDS)
        assert not connecting.done()
        _release(opening)
        with connecting.result(WAIT_SECONDS) as client:
            assert list(client.images.iter_images()) == []
        out, _ = command.communicate(timeout=WAIT_SECONDS)
        assert (command.returncode, f"service     {socket}" in out.decode()) == (0, True)


def test_wait_for_a_service_ends_with_the_service_and_by_ctrl_c(opening: Service) -> None:
    """Whoever waits hears at once that nothing will come of it."""
    with _on_a_terminal(opening) as (first, its), _on_a_terminal(opening) as (second, other):
        for terminal in (its, other):
            _read_until(terminal, b"waiting for the service")
        first.send_signal(signal.SIGINT)
        assert first.wait(WAIT_SECONDS) == 130
        assert second.poll() is None
        opening.process.signal(signal.SIGTERM)
        assert second.wait(WAIT_SECONDS) == 8
        _read_until(other, b"[service-unavailable]")
