"""A file of durable lines: whole lines only, whatever a power cut left at its end."""

from pathlib import Path

import pytest

from cas.errors import StorageError
from cas.fsops.appended import AppendedFile, read_lines

_LIMIT = 100


@pytest.mark.parametrize(
    ("left", "whole"),
    [
        (b"", []),
        (b"half", []),
        (b"one\n", [b"one"]),
        (b"one\ntwo\nhal", [b"one", b"two"]),
        (b"x" * 3_000_000, []),
        (b"one\n" + b"x" * 3_000_000, [b"one"]),
        (b"one\n" + b"x" * 3_000_000 + b"\ntwo\n", [b"one", b"two"]),
    ],
)
def test_lines_after_a_cut_are_whole(tmp_path: Path, left: bytes, whole: list[bytes]) -> None:
    """A half line goes when the file is opened; one that is too long is left out."""
    path = tmp_path / "lines"
    path.write_bytes(left)
    assert list(read_lines(path, _LIMIT)) == whole
    with AppendedFile(path) as file:
        file.append(b"new")
    assert list(read_lines(path, _LIMIT)) == [*whole, b"new"]


def test_lines_behind_a_link_are_neither_read_nor_written(tmp_path: Path) -> None:
    """A link in its place would lead a writer that is root anywhere."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StorageError):
        AppendedFile(tmp_path / "link")
    with pytest.raises(StorageError):
        list(read_lines(tmp_path / "link", _LIMIT))
    assert list(read_lines(tmp_path / "missing", _LIMIT)) == []
