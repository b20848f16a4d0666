"""A process that pulls an image, in which something is killed at one of its steps.

A step is a change on disk or a call that changes something in containerd, made by this process, or
a word of an agent about how far it is.
"""

__all__ = ["Kill", "agents_of", "has_ended", "main"]

import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from cas.errors import CasError
from cas.model.settings import Settings
from tests.support.steps import open_case


@dataclass(frozen=True)
class Kill:
    """Whom to kill, and before which step.

    Args:
        victim: ``parent``, ``downloader`` or ``verifier``.
        step: Words that the step's name has, or its number.
    """

    victim: str
    step: tuple[str, ...] | int


class _Moment:
    """Kills the victim before the step, whichever thread takes it; once."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._count = 0
        self._done = False
        self._guard = threading.Lock()

    def __call__(self, step: str) -> None:
        with self._guard:
            if not self._done and self._is_now(step):
                self._done = True
                self._act()
            self._count += 1

    def _is_now(self, step: str) -> bool:
        wanted = self._kill.step
        if isinstance(wanted, int):
            return self._count == wanted
        return all(word in step for word in wanted)

    def _act(self) -> None:
        victim = self._kill.victim
        pid = os.getpid() if victim == "parent" else agents_of(os.getpid()).get(victim)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    # Progress

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self(f"{action} begins {item}")

    def advance(self, action: str, item: str, amount: int) -> None:
        self(f"{action} goes on {item}")

    def finish(self, action: str, item: str) -> None:
        self(f"{action} ends {item}")


def agents_of(parent: int) -> dict[str, int]:
    """Process ids of the agents of a process by name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            above = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name in ("downloader", "verifier"):
            if above == parent and f"cas.{name}".encode() in words:
                found[name] = int(process.name)
    return found


def has_ended(pid: int) -> bool:
    """Whether a process runs no more, though nobody may have taken note of its end."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def main(settings: Settings, reference: str, kill: Kill) -> None:
    """Pull; exit with the status of the command that does the same."""
    moment = _Moment(kill)
    try:
        with open_case(settings, moment) as case:
            case.pull.image(reference, progress=moment)
    except CasError as error:
        sys.exit(error.exit_code)
