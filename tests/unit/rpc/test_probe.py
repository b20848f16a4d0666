"""Whether somebody listens on a socket."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.errors import ServiceUnavailableError, SocketPathError
from cas.rpc.probe import probe


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket at ``socket`` that accepts connections; nobody takes them."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen(1)
        yield listening


def test_probe_of_a_listener_returns(listener: socket.socket, tmp_path: Path) -> None:
    """Also when more callers wait than fit."""
    for _ in range(4):
        probe(tmp_path / "socket")

    callers = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    try:
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(str(tmp_path / "socket"))
        probe(tmp_path / "socket")
    finally:
        for caller in callers:
            caller.close()


def test_probe_of_nothing_says_how_to_start_it(tmp_path: Path) -> None:
    """A path without a socket is no service."""
    with pytest.raises(ServiceUnavailableError, match="cas serve"):
        probe(tmp_path / "none")


def test_probe_of_a_dead_socket_is_unavailable(listener: socket.socket, tmp_path: Path) -> None:
    """A killed service leaves its socket's file."""
    listener.close()

    with pytest.raises(ServiceUnavailableError, match="refused"):
        probe(tmp_path / "socket")


def test_probe_of_a_file_is_unavailable(tmp_path: Path) -> None:
    """Whatever it is, it is no service."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ServiceUnavailableError):
        probe(tmp_path / "file")


def test_probe_of_a_too_long_path_names_the_option(tmp_path: Path) -> None:
    """The kernel would cut it."""
    with pytest.raises(SocketPathError, match="--service-address"):
        probe(tmp_path / ("x" * 120))
