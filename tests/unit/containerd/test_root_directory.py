"""containerd's directories before it starts."""

import fcntl
import os
import uuid
from pathlib import Path

from cas.containerd.place import Place
from cas.containerd.root_directory import find_root_holder, heal_identity, prepare_directories
from cas.model.layout import Layout

_DATABASE = Path("io.containerd.metadata.v1.bolt", "meta.db")
_IDENTITY = Path("io.containerd.grpc.v1.introspection", "uuid")


def _file(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_prepare_directories_makes_private_ones_and_again_changes_nothing(tmp_path: Path) -> None:
    """Root, run and socket directories are for root alone."""
    layout = Layout(tmp_path)
    for _ in range(2):
        prepare_directories(Place(layout.case, layout.run, tmp_path / "s" / "containerd.sock"))
        assert [_mode(path) for path in (layout.case, layout.run, tmp_path / "s")] == [0o700] * 3


def test_prepare_directories_open_root_is_closed(tmp_path: Path) -> None:
    """Blobs are readable for everybody who gets into the root."""
    layout = Layout(tmp_path)
    layout.case.mkdir(parents=True)
    layout.case.chmod(0o711)

    prepare_directories(Place(layout.case, layout.run, layout.containerd_socket))

    assert _mode(layout.case) == 0o700


def test_heal_identity_empty_file_gets_an_identity(tmp_path: Path) -> None:
    """A power cut leaves the file empty, and containerd cannot introspect then."""
    path = _file(tmp_path / _IDENTITY)
    heal_identity(tmp_path)
    assert uuid.UUID(path.read_text()).version == 4


def test_heal_identity_existing_identity_stays(tmp_path: Path) -> None:
    """It tells this store from another one."""
    path = _file(tmp_path / _IDENTITY, b"7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34")
    heal_identity(tmp_path)
    assert path.read_text() == "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34"


def test_heal_identity_new_store_is_left_alone(tmp_path: Path) -> None:
    """containerd makes its own file."""
    heal_identity(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_find_root_holder_locked_database_names_the_process(tmp_path: Path) -> None:
    """Whoever holds containerd's lock on the database runs on the root."""
    path = _file(tmp_path / _DATABASE)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = find_root_holder(tmp_path)

    assert holder is not None
    assert holder.pid == os.getpid()
    assert holder.command == Path("/proc/self/comm").read_text().strip()


def test_find_root_holder_free_or_missing_database_gives_none(tmp_path: Path) -> None:
    """A database that nobody has locked is free, and so is a new store."""
    assert find_root_holder(tmp_path) is None
    _file(tmp_path / _DATABASE)
    assert find_root_holder(tmp_path) is None
