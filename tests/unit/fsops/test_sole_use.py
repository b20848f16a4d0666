"""Whether anybody has a file open is told by the kernel, whoever it is and however they do it."""

import fcntl
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from cas.errors import InUseError, StorageError
from cas.fsops.record_locks import has_record_lock
from cas.fsops.sole_use import SoleUse, is_open_to_write
from tests.support.daemon import WAIT_SECONDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that nobody has open."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096 * 16)
    return path


@contextmanager
def opened(path: Path, flags: int) -> Iterator[None]:
    descriptor = os.open(path, flags)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def mapped(path: Path, flags: int) -> Iterator[None]:
    descriptor = os.open(path, flags)
    writing = mmap.PROT_WRITE if flags == os.O_RDWR else 0
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ | writing):
        os.close(descriptor)
        yield


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[None]:
    command = ["losetup", *options, "--find", "--show", str(path)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def under_another_name(path: Path) -> Iterator[None]:
    other = path.with_name("other")
    other.hardlink_to(path)
    with other.open("rb"):
        yield


@pytest.mark.parametrize(
    "use",
    [
        lambda path: opened(path, os.O_RDONLY),
        lambda path: opened(path, os.O_RDWR),
        lambda path: mapped(path, os.O_RDONLY),
        lambda path: mapped(path, os.O_RDWR),
        loop_device,
        lambda path: loop_device(path, "--read-only"),
        under_another_name,
    ],
    ids=["read", "write", "map", "map to write", "loop", "loop to read", "other name"],
)
def test_take_of_a_file_that_is_used_is_refused(
    path: Path, use: Callable[[Path], AbstractContextManager[None]], request: pytest.FixtureRequest
) -> None:
    """Until the use ends; who writes is told apart, and nothing of the asking stays open."""
    with use(path):
        with pytest.raises(InUseError, match="open"):
            SoleUse.take(path)
        to_write = {"write", "map to write", "loop"}
        assert is_open_to_write(path) == (request.node.callspec.id in to_write)
    for _ in range(2):
        with taken(path):
            pass


@pytest.mark.parametrize("look", [lambda path: taken(path).__exit__(), is_open_to_write])
def test_descriptor_that_is_about_to_go_is_no_use(
    path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], object]
) -> None:
    """As that of a child of another thread, between fork and exec."""
    monkeypatch.setattr("cas.fsops.sole_use._LOOK_SECONDS", WAIT_SECONDS)
    with ExitStack() as child:
        child.enter_context(opened(path, os.O_RDWR))
        monkeypatch.setattr("time.sleep", lambda _: child.close())
        assert not look(path)


def taken(path: Path) -> SoleUse:
    use = SoleUse.take(path)
    assert use is not None
    return use


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY])
def test_who_opens_meanwhile_waits_and_is_told_if_they_write(path: Path, flags: int) -> None:
    """The signal that announces them ends nothing; they go on with the file that they asked for."""
    is_open, content = threading.Event(), []

    def work() -> None:
        with os.fdopen(os.open(path, flags), "rb") as file:
            is_open.set()
            content.append(file.read(1))

    with taken(path) as use:
        assert not use.is_awaited()
        thread = threading.Thread(target=work)
        thread.start()
        while fcntl.fcntl(use._descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
            is_open.wait(0.001)
        assert use.is_awaited() is (flags == os.O_RDWR)
        path.rename(path.with_name("aside"))
        path.write_bytes(b"y")
        assert not is_open.is_set()
    thread.join()
    assert content == [b"x"]


def test_sole_use_that_the_kernel_has_ended_is_known_and_ends_in_peace(path: Path) -> None:
    """As when its block takes longer than the kernel lets openers wait."""
    with taken(path) as use:
        fcntl.fcntl(use._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        assert use.is_awaited()
    with taken(path):
        pass


def test_look_waits_for_the_end_of_a_sole_use(path: Path) -> None:
    """It does not say that the file cannot be opened."""
    answers: list[bool] = []
    with taken(path) as use:
        thread = threading.Thread(target=lambda: answers.append(has_record_lock(path)))
        thread.start()
        while fcntl.fcntl(use._descriptor, fcntl.F_GETLEASE) == fcntl.F_WRLCK:
            thread.join(0.001)
        assert not use.is_awaited()
    thread.join()
    assert answers == [False]


def test_take_where_there_are_no_leases_tells_nothing(tmp_path: Path) -> None:
    """As on file systems of others, and without the right to have any."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.chown(path, 4242, 4343)
    script = (
        "import sys; from pathlib import Path; from cas.fsops.sole_use import SoleUse;"
        "sys.exit(SoleUse.take(Path(sys.argv[1])) is not None)"
    )
    command = ["setpriv", "--bounding-set=-lease", "--inh-caps=-lease"]
    subprocess.run([*command, sys.executable, "-c", script, str(path)], check=True)


def test_take_of_what_is_no_file_of_that_name_is_an_error(tmp_path: Path) -> None:
    """A link is not followed."""
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    for name in ("link", "gone"):
        with pytest.raises(StorageError):
            SoleUse.take(tmp_path / name)
