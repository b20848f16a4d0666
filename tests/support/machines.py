"""Virtual machines that have a disk open, and disks whose rollback fails half-way."""

__all__ = ["Machine", "lose_state", "machine_starting_before"]

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.fsops.effects import Effect, observed
from cas.fsops.record_locks import has_record_lock
from tests.support.waiting import wait_for


class Machine:
    """A process that holds the lock of a disk, as a virtual machine does; there when it has it."""

    def __init__(self, path: Path, disk_format: str) -> None:
        command = ["qemu-io", "-f", disk_format, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        wait_for(lambda: has_record_lock(path))

    def write_and_end(self, pattern: int, *, size: int) -> None:
        """Write so many bytes to the start of the disk, and close it."""
        self._process.communicate(f"write -P {pattern} 0 {size}\nflush\nquit\n".encode())
        assert self._process.returncode == 0

    def kill(self) -> None:
        """End it wherever it is, also one that has ended."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def machine_starting_before(change: Path, path: Path, disk_format: str) -> Iterator[list[Machine]]:
    """Have a disk opened right before the block changes a file for the first time."""
    started: list[Machine] = []

    def start(_: Effect, changed: str) -> None:
        if not started and changed == str(change):
            started.append(Machine(path, disk_format))

    try:
        with observed(start):
            yield started
    finally:
        for each in started:
            each.kill()


def lose_state(history: Path) -> None:
    """Have a disk's first state not be found, so that a rollback fails after it has begun."""
    lost = history.read_text().replace('"number": 1', '"number": 77')
    history.write_text(lost.replace('"next_number": 2', '"next_number": 78'))
