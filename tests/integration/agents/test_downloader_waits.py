"""A caller who goes away while a datastore does not answer: nobody waits for it any longer."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from cas.datastores.settings import SourceSettings, TransportSettings
from cas.downloader.downloader import Downloader
from cas.errors import InterruptedOperationError, InvalidNameError, SourceStalledError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.reference import ImageReference
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from tests.support.hostile_server import Behaviour, HostileServer, Line, Request, answer
from tests.support.stores import names
from tests.support.waiting import wait_for

SOME = Digest.of(b"some")
PATIENCE = 3600.0
"""Nothing else ends the wait within a test."""


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A server that does as it is told."""
    with HostileServer() as server:
        yield server


def silent(_: Request, line: Line) -> None:
    line.hold()


def half_said(_: Request, line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
    line.hold()


Ask = Callable[[Downloader, ImageReference, Cancellation], object]
CALLS: dict[str, tuple[str, Ask]] = {
    "resolve": ("manifests/1", lambda d, r, c: d.resolve(r, cancel=c)),
    "find-tag": ("manifests/1", lambda d, _, c: d.find_tag("a", "1", cancel=c)),
    "referrers": (f"referrers/{SOME}", lambda d, _, c: d.referrers("a", SOME, cancel=c)),
    "manifest": (
        f"manifests/{SOME}",
        lambda d, _, c: d.fetch(TransferName(uuid4(), SOME), "a", document=True, cancel=c),
    ),
    "blob": (
        f"blobs/{SOME}",
        lambda d, _, c: d.fetch(TransferName(uuid4(), SOME), "a", cancel=c),
    ),
    "size": (f"blobs/{SOME}", lambda d, _, c: d.stat(f"a@{SOME}", cancel=c)),
    "small-blob": (f"blobs/{SOME}", lambda d, _, c: d.read(f"a@{SOME}", limit=9, cancel=c)),
}


def stop_while_waiting(
    ask: Callable[[Cancellation], object], server: HostileServer, path: str
) -> None:
    """Stop a call when the server has it; an agent that did not obey at once would be given up."""
    cancel = Cancellation()

    def stop() -> None:
        wait_for(lambda: server.asked(path))
        cancel.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(InterruptedOperationError):
        ask(cancel)
    stopper.join()


@pytest.fixture
def downloader(server: HostileServer, agent_settings: Settings) -> Iterator[Downloader]:
    """One for the server as a registry, with all the patience of the world."""
    settings = SourceSettings(
        url=f"docker://127.0.0.1:{server.port}",
        plain_http=True,
        transport=TransportSettings(idle_seconds=PATIENCE),
    )
    with Downloader(agent_settings, settings) as downloader:
        yield downloader


@pytest.mark.parametrize("call", CALLS)
def test_call_to_a_silent_registry_ends_with_its_caller(
    call: str, server: HostileServer, downloader: Downloader, agent_settings: Settings
) -> None:
    """Whatever was asked; the downloader lives on and nothing is left."""
    part, ask = CALLS[call]
    path = f"/v2/a/{part}"
    server.on(path, silent)
    reference = ImageReference.parse(f"127.0.0.1:{server.port}/a:1")

    stop_while_waiting(lambda cancel: ask(downloader, reference, cancel), server, path)

    server.on("/v2/a/manifests/2", answer(404))
    assert downloader.find_tag("a", "2") is None
    assert names(agent_settings.layout.downloader) == []


@pytest.mark.parametrize("kind", ["https", "sftp"])
def test_server_that_takes_the_connection_and_says_nothing_is_not_waited_for(
    kind: str, agent_settings: Settings
) -> None:
    """Neither for its handshake nor for its banner."""
    patient = TransportSettings(connect_seconds=PATIENCE, idle_seconds=PATIENCE)
    cancel = Cancellation()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{kind}://bob@127.0.0.1:{listener.getsockname()[1]}/a"

        def stop() -> None:
            line, _ = listener.accept()
            with line:
                assert line.recv(1)
                cancel.set()
                while line.recv(65536):
                    pass

        stopper = threading.Thread(target=stop)
        stopper.start()
        with Downloader(agent_settings, SourceSettings(url=url, transport=patient)) as downloader:
            with pytest.raises(InterruptedOperationError):
                downloader.stat("x", cancel=cancel)
            stopper.join()
            with pytest.raises(InvalidNameError, match="no registry"):  # so it lives on
                downloader.find_tag("a", "1")


@dataclass(frozen=True)
class Deaf:
    """A port whose queue of connections is full: it answers no SYN.

    Args:
        port: Which.
        ours: The ports of those that fill the queue.
    """

    port: int
    ours: frozenset[int]

    def is_asked(self) -> bool:
        """Whether somebody else waits for the answer to a SYN."""
        lines = Path("/proc/self/net/tcp").read_text().splitlines()
        waiting = {line.split()[1] for line in lines if f":{self.port:04X} 02 " in line}
        return not {int(address.partition(":")[2], 16) for address in waiting} <= self.ours


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    """Such a port."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        port, ours = int(listener.getsockname()[1]), set()
        for _ in range(8):
            line = stack.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(("127.0.0.1", port))
            ours.add(int(line.getsockname()[1]))
        yield Deaf(port, frozenset(ours))


@pytest.mark.parametrize("kind", ["https", "sftp"])
def test_host_that_swallows_connections_is_not_waited_for(
    kind: str, deaf: Deaf, agent_settings: Settings
) -> None:
    """The caller goes away at once, and the downloader lives on."""
    patient = TransportSettings(connect_seconds=PATIENCE)
    source = SourceSettings(url=f"{kind}://bob@127.0.0.1:{deaf.port}/a", transport=patient)
    cancel = Cancellation()
    with Downloader(agent_settings, source) as downloader:

        def stop() -> None:
            wait_for(deaf.is_asked)
            cancel.set()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(InterruptedOperationError):
            downloader.stat("x", cancel=cancel)
        stopper.join()
        with pytest.raises(InvalidNameError, match="no registry"):  # so it lives on
            downloader.find_tag("a", "1")


@pytest.mark.parametrize("kind", ["https", "sftp"])
def test_host_that_swallows_connections_is_given_up_in_time(
    kind: str, deaf: Deaf, agent_settings: Settings
) -> None:
    """The limit for connections reaches the downloader."""
    impatient = TransportSettings(connect_seconds=0.05)
    source = SourceSettings(url=f"{kind}://bob@127.0.0.1:{deaf.port}/a", transport=impatient)
    download = replace(agent_settings.download, attempts=1)
    with (
        Downloader(replace(agent_settings, download=download), source) as downloader,
        pytest.raises(SourceStalledError),
    ):
        downloader.stat("x")


@pytest.mark.parametrize("behaviour", [silent, half_said])
def test_token_that_does_not_come_is_not_waited_for(
    behaviour: Behaviour, server: HostileServer, downloader: Downloader
) -> None:
    """Neither its headers nor its body."""
    realm = server.on("/token", behaviour)
    server.on("/v2/a/manifests/1", answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}))

    stop_while_waiting(
        lambda cancel: downloader.find_tag("a", "1", cancel=cancel), server, "/token"
    )

    server.on("/token", answer(200, body=b'{"token":"t"}'))
    server.on("/v2/a/manifests/1", answer(404))
    assert downloader.find_tag("a", "1") is None


def test_pause_that_a_registry_asks_for_ends_with_the_caller(
    server: HostileServer, downloader: Downloader
) -> None:
    """No further attempt follows it."""
    path = "/v2/a/manifests/1"
    server.on(path, answer(503, {"Retry-After": "800"}))

    stop_while_waiting(lambda cancel: downloader.find_tag("a", "1", cancel=cancel), server, path)

    assert len(server.asked(path)) == 1
