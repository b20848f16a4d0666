"""What is put out of the way of a new socket, with real ones."""

import socket
from pathlib import Path

import pytest

from cas.errors import InUseError
from cas.fsops.dead_sockets import remove_dead_socket


def test_socket_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    """Nobody listens there any more; and nothing there is fine."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    remove_dead_socket(path)
    assert not path.exists()
    remove_dead_socket(path)


def test_socket_of_somebody_who_listens_stays(tmp_path: Path) -> None:
    """Also where so many wait that one more cannot connect at once."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen(0)
        for _ in range(3):
            with pytest.raises(InUseError, match="somebody serves"):
                remove_dead_socket(path)
        assert path.is_socket()


def test_file_where_the_socket_shall_be_stays(tmp_path: Path) -> None:
    """It may be anything that somebody needs."""
    path = tmp_path / "s"
    path.write_text("x")
    with pytest.raises(InUseError, match="is no socket"):
        remove_dead_socket(path)
    assert path.read_text() == "x"
