"""Tools for tests that watch, kill, mount and cut power."""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cas.fsops.effects import Effect, observed
from cas.fsops.mounts import iter_mounts, unmount
from tests.support.killing import kill_at

_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSH = 2


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


@dataclass
class LoopFileSystem:
    """An ext4 of its own, on a file."""

    image: Path
    path: Path
    mounted: bool = field(default=False)

    def mount(self) -> None:
        """Mount it, which replays its journal."""
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)
        self.mounted = True

    def unmount(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", self.path], check=True)
            self.mounted = False

    def cut_power(self) -> None:
        """Stop all writing to the device at once, and start again."""
        outside = self.path.parent.stat().st_dev
        assert self.path.stat().st_dev != outside, "never cut a file system that is not ours"
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("=I", _WITHOUT_FLUSH))
        os.close(descriptor)
        self.unmount()
        self.mount()


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Callable[..., LoopFileSystem]]:
    """Make small ext4 file systems that go away with the test."""
    made: list[LoopFileSystem] = []

    def make(size_mib: int = 16, *options: str) -> LoopFileSystem:
        image = tmp_path / f"ext4-{len(made)}.img"
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, image], check=True)
        path = tmp_path / f"ext4-{len(made)}"
        path.mkdir()
        made.append(LoopFileSystem(image, path))
        made[-1].mount()
        return made[-1]

    yield make
    for file_system in made:
        file_system.unmount()


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
