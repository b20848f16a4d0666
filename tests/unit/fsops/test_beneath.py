"""A file that must lie below a directory is never found elsewhere."""

import os
import threading
from pathlib import Path

import pytest

from cas.errors import DeniedError, SourceNotFoundError
from cas.fsops.beneath import inspect, open_source, remove_unchanged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``allowed`` with a file two levels down, beside a secret."""
    (tmp_path / "secret").write_bytes(b"secret")
    below = tmp_path / "allowed/a/b"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"content")
    return tmp_path / "allowed"


def _read(path: Path, beneath: Path | None) -> bytes:
    descriptor = open_source(path, beneath)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_file_below_the_directory_is_opened(root: Path) -> None:
    """At any depth, also when the directory itself is reached through a link."""
    (root.parent / "link").symlink_to(root)

    assert _read(root / "a/b/file", root) == b"content"
    assert _read(root.parent / "link/a/b/file", root.parent / "link") == b"content"
    assert inspect(root / "a/b/file", root).st_size == 7


def test_path_that_leaves_the_directory_is_denied(root: Path) -> None:
    """By its text, by a link as its end, by a link on the way, by a file as directory."""
    (root / "link").symlink_to(root.parent / "secret")
    (root / "inside").symlink_to("a/b/file")
    (root / "way").symlink_to(root.parent)

    for path in (
        root.parent / "secret",
        root / "../secret",
        root / "a/../../secret",
        root,
        root / "link",
        root / "inside",
        root / "way/secret",
        root / "a/b/file/x",
    ):
        with pytest.raises(DeniedError):
            _read(path, root)
        with pytest.raises(DeniedError):
            inspect(path, root)


def test_missing_file_or_directory_is_not_found(root: Path) -> None:
    """Absence is told from denial."""
    for name in ("nothing", "a/nothing/file"):
        with pytest.raises(SourceNotFoundError):
            _read(root / name, root)


def test_pipe_below_the_directory_does_not_block(root: Path) -> None:
    """Nobody waits for the other end of something that is no file."""
    os.mkfifo(root / "pipe")

    assert _read(root / "pipe", root) == b""


def test_directory_swapped_for_a_link_never_leads_out(root: Path) -> None:
    """Whatever is swapped while the path is walked, only the right file or an error comes."""
    outside = root.parent / "b"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(root / "a/b", root / "aside")
            os.rename(root / "link", root / "a/b")
            os.rename(root / "a/b", root / "link")
            os.rename(root / "aside", root / "a/b")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(2000):
            try:
                assert _read(root / "a/b/file", root) == b"content"
            except (DeniedError, SourceNotFoundError):
                continue
    finally:
        done.set()
        swapper.join()


@pytest.mark.parametrize("confined", [False, True])
def test_file_that_was_read_is_removed_and_another_is_not(root: Path, confined: bool) -> None:
    """The name goes only if it still is the inode that was read."""
    path, beneath = root / "a/b/file", root if confined else None
    read = path.stat()
    path.write_bytes(b"longer content")

    assert not remove_unchanged(path, read, beneath=beneath)
    assert remove_unchanged(path, path.stat(), beneath=beneath)
    assert not path.exists()
    assert not remove_unchanged(path, read, beneath=beneath)


def test_without_a_directory_paths_mean_what_they_always_mean(root: Path) -> None:
    """The command line follows links, as every tool does."""
    (root / "link").symlink_to(root.parent / "secret")

    assert _read(root / "link", None) == b"secret"
    assert inspect(root / "link", None).st_size == 6
