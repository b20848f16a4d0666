"""Directories that are written first and synced at once."""

import stat
from pathlib import Path

import pytest

from cas.errors import AlreadyExistsError, StorageError
from cas.fsops.building import build_directory, sync_tree
from cas.fsops.effects import Effect, observed


def test_built_directory_has_content_and_modes(tmp_path: Path) -> None:
    """Modes do not depend on the umask."""
    target = tmp_path / "built"
    build_directory(target, files={"a": b"1", "empty": b""}, directories={"d": 0o755})
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {
        "a": 0o644,
        "empty": 0o644,
        "d": 0o755,
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (target / "a").read_bytes() == b"1"
    assert (target / "empty").read_bytes() == b""


def test_building_over_something_is_refused(tmp_path: Path) -> None:
    """What is there is not touched."""
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "a").write_bytes(b"old")
    with pytest.raises(AlreadyExistsError):
        build_directory(tmp_path / "built", files={"a": b"new"}, directories={})
    assert (tmp_path / "built" / "a").read_bytes() == b"old"


def test_sync_tree_syncs_every_file_before_its_directory(tmp_path: Path) -> None:
    """Each file, each directory, and the top itself."""
    top = tmp_path / "built"
    build_directory(top, files={"a": b"1"}, directories={"d": 0o755})
    (top / "d" / "deep").write_bytes(b"2")
    synced: list[str] = []

    def observe(kind: Effect, path: str) -> None:
        assert kind is Effect.FSYNC
        synced.append(path)

    with observed(observe):
        sync_tree(top)
    assert sorted(synced) == sorted(map(str, [top, top / "a", top / "d", top / "d" / "deep"]))
    assert synced.index(str(top / "d" / "deep")) < synced.index(str(top / "d"))
    assert synced[-1] == str(top)


def test_sync_tree_of_absent_directory_fails(tmp_path: Path) -> None:
    """Nothing is taken for durable that is not there."""
    with pytest.raises(StorageError):
        sync_tree(tmp_path / "absent")
