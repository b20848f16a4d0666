"""Who may connect to a socket, with real ones."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.errors import InUseError, StorageError
from cas.fsops.socket_access import bound_for_owner, set_socket_access


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A socket made by a process that hides nothing from anybody."""
    before = os.umask(0)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            bound_for_owner(listener, tmp_path / "s")
            yield tmp_path / "s"
    finally:
        os.umask(before)


def test_socket_is_its_owners_until_access_is_set(bound: Path) -> None:
    """Nobody else connects between the two, whatever the umask."""
    assert bound.stat().st_mode & 0o777 == 0o600
    set_socket_access(bound, group=12345, mode=0o660)
    assert (bound.stat().st_mode & 0o777, bound.stat().st_gid) == (0o660, 12345)


def test_what_took_the_place_of_the_socket_is_left_alone(bound: Path, tmp_path: Path) -> None:
    """A link would have given away what it points to."""
    (tmp_path / "secret").touch(0o600)
    bound.unlink()
    with pytest.raises(StorageError):
        set_socket_access(bound, group=12345, mode=0o666)
    bound.symlink_to(tmp_path / "secret")
    with pytest.raises(InUseError):
        set_socket_access(bound, group=12345, mode=0o666)
    found = (tmp_path / "secret").stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o600, os.getegid())
