"""A containerd that stands still, and whether somebody has asked it something meanwhile."""

__all__ = ["Frozen", "frozen"]

import array
import fcntl
import os
import signal
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cas.containerd.daemon import Daemon
from tests.support.waiting import wait_for


class Frozen:
    """A containerd that was stopped in the middle of whatever it did.

    Args:
        daemon: The one.
    """

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.pid is not None
        self._daemon = daemon
        self._pid = daemon.pid
        os.kill(self._pid, signal.SIGSTOP)
        wait_for(self._stands)

    def _stands(self) -> bool:
        """Whether each of its threads has stopped: they do so one after the other."""
        tasks = Path(f"/proc/{self._pid}/task").iterdir()
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks
        )

    def was_asked(self) -> bool:
        """Whether this process has sent something that is not read."""
        return any(map(_unread, _connections(self._daemon.socket)))

    def kill(self) -> None:
        """It never comes back."""
        self._daemon.kill()

    def thaw(self) -> None:
        """Let it go on, if it lives."""
        if self._daemon.pid == self._pid:
            os.kill(self._pid, signal.SIGCONT)


@contextmanager
def frozen(daemon: Daemon) -> Iterator[Frozen]:
    """Let a containerd stand still as long as the context lasts."""
    ice = Frozen(daemon)
    try:
        yield ice
    finally:
        ice.thaw()


def _connections(path: Path) -> Iterator[socket.socket]:
    """This process's connections to a socket, one after the other."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile, or connected to nobody
            if not str(link.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as found:
                if found.family == socket.AF_UNIX and found.getpeername() == str(path):
                    yield found


def _unread(connection: socket.socket) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, waiting)
    return waiting[0]
