"""Connections that break, come back, or were never to the service."""

import io
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import (
    DeadlineExceededError,
    ServiceMismatchError,
    ServiceUnavailableError,
    SocketPathError,
)
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.rpc.client import Client
from cas.rpc.client.vault import VaultClient
from tests.support.daemon import WAIT_SECONDS
from tests.support.service_host import ServiceHost
from tests.support.serving import server_of
from tests.support.waiting import wait_for

ABSENT = Digest.of(b"absent")


class _Reader(io.RawIOBase):
    """Gives chunks, and at the tenth does something."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._count = 0

    def read(self, size: int = -1, /) -> bytes:
        """A chunk."""
        self._count += 1
        if self._count == 10:
            self._act()
        return b"x" * 100_000 if self._count < 200 else b""


def _answers(client: Client) -> bool:
    try:
        return not client.blobs.exists(ABSENT)
    except ServiceUnavailableError:
        return False


def test_service_killed_in_the_middle_of_a_call_is_told_and_its_successor_found(
    served: Settings, tmp_path: Path
) -> None:
    """The same client goes on, and the same call succeeds."""
    with ServiceHost(tmp_path / "first") as first, first.serving(served):
        client = Client.connect(served.service_socket)
        with pytest.raises(ServiceUnavailableError):
            client.blobs.ingest_stream(_Reader(first.kill))
    with pytest.raises(ServiceUnavailableError):
        client.blobs.exists(ABSENT)

    with client, ServiceHost(tmp_path / "second") as second, second.serving(served):
        wait_for(lambda: _answers(client))
        client.recover()
        stored = client.blobs.ingest_stream(_Reader(lambda: None))

        assert client.blobs.verify(stored.digest).size == 199 * 100_000
        assert client.check_store().findings == ()


def _reaches(client: Client) -> bool:
    try:
        return bool(client.vaults.status())
    except ServiceUnavailableError:
        return False


def test_service_that_is_started_again_is_waited_for_by_clients_old_and_new(
    case: Case, served: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that were connected before, and those that come before it listens, if they want to."""
    socket = served.service_socket
    with caplog.at_level(logging.INFO, "cas"), ThreadPoolExecutor(2) as pool:
        connecting = pool.submit(Client.connect, socket, listening_seconds=WAIT_SECONDS)
        asking = pool.submit(VaultClient.connect, socket, listening_seconds=WAIT_SECONDS)
        with server_of(case, socket):
            client = connecting.result(WAIT_SECONDS)
            with asking.result(WAIT_SECONDS) as vaults:
                assert vaults.status()
        with client, server_of(case, socket, store=None) as server:
            wait_for(lambda: _reaches(client))
            listing = pool.submit(lambda: list(client.images.iter_images()))
            sending = pool.submit(client.blobs.ingest_stream, io.BytesIO(b"words"))
            wait_for(lambda: caplog.text.count("reference=service-opening") > 4)
            assert not listing.done()
            server.open_store(case)
            assert listing.result(WAIT_SECONDS) == []
            assert sending.result(WAIT_SECONDS).size == len(b"words")


class _EndOfUpload:
    """Waits for the end of an upload in the service."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def call_began(self, method: str) -> None: ...

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        if method == "/cas.v1.Blobs/Upload":
            self._ended.set()

    def wait(self) -> None:
        """Also for one whose time was over before it came: that long at most."""
        self._ended.wait(60)


def test_deadline_of_the_caller_ends_a_call(case: Case, served: Settings) -> None:
    """Also in the service; and the connection serves others as before."""
    socket, upload = served.service_socket, _EndOfUpload()
    with server_of(case, socket, observer=upload), Client.connect(socket) as client:
        with pytest.raises(DeadlineExceededError):
            client.with_deadline(0.3).blobs.ingest_stream(_Reader(upload.wait))

        assert _answers(client)


def test_peer_that_speaks_something_else_is_no_service(tmp_path: Path) -> None:
    """Whatever it answers."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with suppress(OSError):  # the listener is shut
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises((ServiceUnavailableError, DeadlineExceededError)):
                Client.connect(path, seconds=2.0)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_absent_and_impossible_sockets_are_told_apart(tmp_path: Path) -> None:
    """Before anything is connected."""
    with pytest.raises(ServiceUnavailableError, match="cas serve"):
        Client.connect(tmp_path / "none")
    with pytest.raises(SocketPathError):
        Client.connect(tmp_path / ("x" * 120))


def test_service_of_another_store_is_refused(client: Client, served: Settings) -> None:
    """Which store it is, is in the details."""
    client.require_store(persist=served.persist, namespace=served.namespace)

    with pytest.raises(ServiceMismatchError) as caught:
        client.require_store(persist=served.persist, namespace="other")
    assert caught.value.details["namespace"] == served.namespace
    with pytest.raises(ServiceMismatchError):
        client.require_store(persist=Path("/persist"), namespace=served.namespace)


def test_closing_twice_is_harmless(client: Client, served: Settings) -> None:
    """As everywhere."""
    other = Client.connect(served.service_socket)
    other.close()
    other.close()
    assert _answers(client)
