"""Small real file systems: full disks, encrypted directories and power cuts without a machine."""

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.daemon import WAIT_SECONDS, unmount

_EXT4_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32). Source: fs/ext4/ext4.h."""
_WITHOUT_LOG_FLUSH = 2

_POLL_SECONDS = 0.005
_LOOP_DEVICES = Path("/sys/block")
_BLOCK_BYTES = 4096


class LoopFileSystem:
    """An ext4 in a file, mounted; use it as a context manager.

    Args:
        directory: Where image and mount point are made; empty.
        size: Bytes of the image, which is sparse.
        features: ext4 features beside the default ones, such as ``encrypt``.
    """

    def __init__(self, directory: Path, size: int, features: Sequence[str] = ()) -> None:
        self.image = directory / "image"
        self.path = directory / "m"
        self.path.mkdir()
        self._filler = self.path / "filler"
        with self.image.open("wb") as image:
            image.truncate(size)
        options = ["-O", ",".join(features)] if features else []
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, self.image], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, replaying the journal if there is something in it."""
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)

    def unmount(self) -> None:
        """Unmount it; waits for those who still have it open. Idempotent."""
        unmount(self.path)
        self._wait_for_its_end()

    def _wait_for_its_end(self) -> None:
        """Wait until no other mount namespace has it mounted any more.

        A containerd of another test copies all mounts for the moment in which it unpacks a layer.
        Mounted again meanwhile it would be the same file system, keys and all.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while any(_backing_file(device) == str(self.image) for device in _LOOP_DEVICES.iterdir()):
            assert time.monotonic() < deadline, f"{self.image} is mounted somewhere else"
            time.sleep(_POLL_SECONDS)

    def power_cut(self) -> None:
        """Stop all writing at this instant: what was not synced is lost after a remount."""
        assert os.path.ismount(self.path), "refusing to shut down another file system"
        assert self.path.stat().st_dev != self.path.parent.stat().st_dev
        with closing(_Descriptor(self.path)) as opened:
            fcntl.ioctl(opened.number, _EXT4_IOC_SHUTDOWN, struct.pack("=I", _WITHOUT_LOG_FLUSH))

    def fill(self, leave: int = 0) -> None:
        """Take every block that is free, as somebody else's data would. Idempotent.

        Args:
            leave: Bytes to leave free after all.
        """
        with self._filler.open("ab") as filler:
            step = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
            while step >= _BLOCK_BYTES:
                try:
                    os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, step)
                except OSError:
                    step //= 2  # some is the file system's own
            if leave:
                filler.truncate(max(0, os.fstat(filler.fileno()).st_size - leave))
                os.fsync(filler.fileno())  # blocks are given out again only after a commit

    def leave(self, size: int) -> None:
        """Take so much that those without privileges have ``size`` bytes left."""
        self.make_room()
        status = os.statvfs(self.path)
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, status.f_bavail * status.f_frsize - size)

    def make_room(self) -> None:
        """Give back what :meth:`fill` or :meth:`leave` took. Idempotent."""
        if not self._filler.exists():
            return
        self._filler.unlink()
        with closing(_Descriptor(self.path)) as opened:
            os.fsync(opened.number)  # blocks are given out again only after a commit

    def remount(self) -> None:
        """Unmount and mount again, as after a reboot."""
        self.unmount()
        self.mount()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()


def _backing_file(device: Path) -> str | None:
    try:
        return (device / "loop" / "backing_file").read_text().rstrip("\n")
    except OSError:
        return None


@contextmanager
def mounted(kind: str, directory: Path, size: int = 512 * 1024 * 1024) -> Iterator[Path]:
    """Give the mount point of a new file system of any kind, such as ``xfs``, in a sparse file."""
    path = directory / "m"
    path.mkdir()
    with mounted_at(path, kind, directory / "image", size):
        yield path


@contextmanager
def mounted_at(path: Path, kind: str, image: Path, size: int = 512 * 1024 * 1024) -> Iterator[None]:
    """Have such a file system mounted on a directory."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    try:
        yield
    finally:
        unmount(path)


class _Descriptor:
    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.number)
