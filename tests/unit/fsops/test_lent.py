"""Files that are lent to a program without rights: nothing of them stays with it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import StorageError
from cas.fsops.lent import LentFile

_OWNER = (1000, 1001)
_LEND = """
from contextlib import suppress
from pathlib import Path

from cas.errors import CasError
from cas.fsops.lent import LentFile

with suppress(CasError), LentFile(Path({path!r}), user=4242, group=4343):
    print("lent")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of somebody."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o640)
    os.chown(path, *_OWNER)
    return path


def _owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("lost", [False, True])
def test_lent_file_is_given_back(path: Path, *, lost: bool) -> None:
    """To whoever had it, or to root where nobody knows who that was."""
    with LentFile(path, user=4242, group=4343, lost=lost) as file:
        assert (_owner(path), file.size) == ((4242, 4343), 7)
    assert _owner(path) == ((0, path.parent.stat().st_gid) if lost else _OWNER)


@pytest.mark.parametrize("failing", [1, 2])
def test_file_that_cannot_be_lent_is_nobody_elses(
    path: Path, traced: Callable[..., list[str]], failing: int
) -> None:
    """Also where the owner was changed already, and only the mode could not be set."""
    call = ("fchown", "fchmod")[failing - 1]
    lines = traced(_LEND.format(path=str(path)), "-e", f"inject={call}:error=EIO:when=1")
    assert any(f"{call}(" in each and "INJECTED" in each for each in lines)
    assert not any("lent\\n" in each for each in lines if "write(1" in each)
    assert _owner(path) == _OWNER


def test_file_with_a_second_name_or_no_file_is_refused(path: Path) -> None:
    """The other name may be anywhere; nothing is changed, and nothing stays open."""
    os.link(path, path.parent / "second")
    pipe = path.parent / "pipe"
    os.mkfifo(pipe)
    before = _open_descriptors()
    for each in (path, pipe):
        with pytest.raises(StorageError, match="not a regular file with one name"):
            LentFile(each, user=4242, group=4343)
    assert _open_descriptors() <= before
    assert _owner(path) == _OWNER
