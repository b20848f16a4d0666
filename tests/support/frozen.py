"""A containerd that stands still, and whether somebody has asked it something meanwhile."""

__all__ = ["Frozen", "freeze", "frozen", "stands"]

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


def freeze(pid: int) -> None:
    """Stop a process and wait until it stands still: its threads stop one after the other."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stands(pid))


def stands(pid: int) -> bool:
    """Whether all threads of a process are stopped."""
    try:
        stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended before it could stop
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


class Frozen:
    """A containerd that was stopped in the middle of whatever it did.

    Args:
        daemon: The one.
    """

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.pid is not None
        self._daemon = daemon
        self._pid = daemon.pid
        freeze(self._pid)

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
