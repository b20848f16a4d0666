"""Tools for tests that watch, kill, mount and cut power."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas.fsops.effects import Effect, observed
from cas.fsops.mounts import iter_mounts, unmount
from tests.support.killing import kill_at
from tests.support.loopfs import LoopFileSystem


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Unmount what a failing test left below its directory."""
    yield
    for mount in reversed(list(iter_mounts())):
        if tmp_path in (mount.path, *mount.path.parents):
            unmount(mount.path, lazily=True)


def entries(directory: Path) -> list[str]:
    """Give the names in a directory, sorted."""
    return sorted(path.name for path in directory.iterdir())


class Killed(BaseException):
    """Stands for the end of a process; nothing may catch it."""


class Effects(list[tuple[Effect, str]]):
    """Announced changes, in order."""

    def kinds(self) -> list[str]:
        """Give their kinds alone."""
        return [kind.value for kind, _ in self]


def _record(action: Callable[[], object]) -> Effects:
    seen = Effects()
    with observed(lambda kind, path: seen.append((kind, path))):
        action()
    return seen


@pytest.fixture
def effects_of() -> Callable[[Callable[[], object]], Effects]:
    """Run something and give the changes that it announced."""
    return _record


@pytest.fixture
def killed_at() -> Callable[[int, Callable[[], object]], bool]:
    """Run something in a process that dies right before its k-th change."""
    return kill_at


@pytest.fixture
def ext4(loop_ext4: Callable[..., LoopFileSystem]) -> Callable[..., LoopFileSystem]:
    """Make small ext4 file systems that go away with the test."""

    def make(size_mib: int = 16, *features: str) -> LoopFileSystem:
        return loop_ext4(size_mib << 20, *features)

    return make


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Give a file system of 256 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    return path


@pytest.fixture
def traced(tmp_path: Path) -> Callable[..., list[str]]:
    """Run Python code under strace; gives the lines of the trace."""

    def run(code: str, *options: str) -> list[str]:
        trace = tmp_path / "trace"
        command = [
            "strace",
            "-f",
            "-y",
            "-s",
            "4096",
            "-o",
            str(trace),
            *options,
            sys.executable,
            "-c",
            code,
        ]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[3])
        return trace.read_text().splitlines()

    return run
