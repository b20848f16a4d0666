"""The service's name for its socket."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import InUseError
from cas.rpc.server.socket_file import SocketFile


def test_claim_of_a_socket_at_which_somebody_else_serves_is_refused(tmp_path: Path) -> None:
    """Whoever it is may hold no lock of ours; his socket stays, and he can be reached there."""
    path = tmp_path / "cas.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as caller:
        other.bind(str(path))
        other.listen()
        with pytest.raises(InUseError, match="somebody serves"):
            SocketFile(path, mode=0o660, gid=None).claim()
        caller.connect(str(path))


def test_claim_of_a_socket_that_a_killed_service_left_takes_its_place(tmp_path: Path) -> None:
    """The lock went with its process, the socket did not."""
    path = tmp_path / "cas.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    file = SocketFile(path, mode=0o660, gid=None)
    file.claim()
    assert not path.exists()
    file.release()


def _file(path: Path) -> None:
    path.write_text("x")


def _directory(path: Path) -> None:
    path.mkdir()


def _dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _link_to_a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path.with_name("other")))
    path.symlink_to("other")


@pytest.mark.parametrize("occupy", [_file, _directory, _dangling_link, _link_to_a_socket])
def test_claim_of_a_name_that_is_no_socket_leaves_it_as_it_is(
    tmp_path: Path, occupy: Callable[[Path], None]
) -> None:
    """It may be anything that somebody needs; when it is moved away, the name can be had."""
    path = tmp_path / "cas.sock"
    occupy(path)
    before = path.lstat()
    file = SocketFile(path, mode=0o660, gid=None)
    with pytest.raises(InUseError, match="is no socket"):
        file.claim()
    assert path.lstat() == before
    path.rename(tmp_path / "aside")
    file.claim()
    file.release()
