"""The digest of files and trees: equal if and only if they are, however their holes lie."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import SourceChangedError
from cas.fsops.replica import content_digest, replicate

_MIB = 1024 * 1024
_TIME = 10**18


def _digest(path: Path) -> str:
    os.utime(path, ns=(_TIME, _TIME))
    return content_digest(path, advance=lambda _: None)


@pytest.mark.parametrize("seed", range(6))
def test_digest_of_the_same_bytes_is_the_same_with_and_without_holes(
    tmp_path: Path, seed: int
) -> None:
    """Zeros that are written, holes, and holes of other sizes cannot be told apart by readers."""
    source = random.Random(seed)
    size = source.randrange(3 * _MIB)
    content = bytearray(size)
    for _ in range(source.randrange(6)):
        start = source.randrange(size)
        piece = source.randbytes(source.choice([1, 4096, 70_000]))[: size - start]
        content[start : start + len(piece)] = piece
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"
    dense.write_bytes(content)
    with sparse.open("wb") as file:
        for start in range(0, size, 4096):
            page = content[start : start + 4096]
            if any(page):
                file.seek(start)
                file.write(page)
        file.truncate(size)
    expected = _digest(dense)
    assert _digest(sparse) == expected
    copy = tmp_path / "copy"
    assert replicate(sparse, copy, advance=lambda _: None).digest == expected
    assert copy.read_bytes() == bytes(content)
    with dense.open("r+b") as file:
        file.seek(source.randrange(size))
        before = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([before[0] ^ 1]))
    assert _digest(dense) != expected


def _mode(path: Path) -> None:
    path.chmod(0o611)


def _owner(path: Path) -> None:
    os.chown(path, 7, 8)


def _size(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def _attribute(path: Path) -> None:
    os.setxattr(path, "trusted.note", b"x")


@pytest.mark.parametrize("change", [_mode, _owner, _size, _attribute])
def test_digest_of_another_file_or_attribute_is_another(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Whatever a copy could lose shows."""
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    before = [_digest(path), _digest(path.parent)]
    change(path)
    after = [_digest(path), _digest(path.parent)]
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_digest_of_trees_tells_names_and_links_apart(tmp_path: Path) -> None:
    """Two files, one with two names, and the same under other names are three trees."""
    digests = set()
    for kind in ("two", "linked", "renamed"):
        tree = tmp_path / kind
        tree.mkdir()
        (tree / "a").write_bytes(b"x")
        if kind == "linked":
            os.link(tree / "a", tree / "b")
        else:
            (tree / ("b" if kind == "two" else "c")).write_bytes(b"x")
        for path in tree.iterdir():
            os.utime(path, ns=(_TIME, _TIME))
        digests.add(_digest(tree))
    assert len(digests) == 3


def test_copy_of_a_file_that_is_written_to_meanwhile_is_an_error(tmp_path: Path) -> None:
    """What it would be a copy of was there at no moment."""
    source = tmp_path / "source"
    source.write_bytes(bytes([1]) * 2 * _MIB)

    def write(amount: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(SourceChangedError):
        replicate(source, tmp_path / "copy", advance=write)
