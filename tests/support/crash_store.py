"""A store whose machine, containerd or clients can be lost at any moment, and its recovery."""

__all__ = ["Machine", "Worker", "recover"]

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.model.limits import Limits
from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.crash_scenario import Job, Promises
from tests.support.daemon import settings_for, unmount_below
from tests.support.loopfs import LoopFileSystem

_ROOT = Path(__file__).parents[2]


class Machine:
    """A persist directory on a disk of its own and a containerd on it; a context manager.

    Args:
        disk: The disk; mounted.
        binary: containerd.
        limits: Of the store; None for the usual ones.
    """

    def __init__(self, disk: LoopFileSystem, binary: str, limits: Limits | None = None) -> None:
        self.disk = disk
        settings = settings_for(disk.path, binary)
        self.settings = settings if limits is None else replace(settings, limits=limits)
        self.log: list[str] = []
        self.daemon = Daemon(self.settings, log=self.log.append)

    def lose_power(self, *workers: "Worker") -> None:
        """Stop the disk at this instant, then everything that runs, and start again."""
        self.disk.power_cut()
        for worker in workers:
            worker.kill()
        self.daemon.kill()
        unmount_below(self.disk.path)
        self.disk.remount()
        self.daemon.start()

    def __enter__(self) -> Self:
        create_directories(self.settings, repair=True)
        self.daemon.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.daemon.kill()
        unmount_below(self.disk.path)


class Worker:
    """A process that does jobs, see :mod:`tests.support.crash_worker`; a context manager.

    Args:
        settings: Of the store.
        jobs: What it does.
        promises: Hears what the store says is done.
        options: Of the worker.
    """

    def __init__(
        self, settings: Settings, jobs: Sequence[Job], promises: Promises, *options: str
    ) -> None:
        self._promises = promises
        self.steps = 0
        self.done = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_worker", str(settings.persist), *options],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(jobs).encode())
        self._process.stdin.close()

    def run(self, steps: int | None = None, seconds: float = 0.0) -> None:
        """Let it work until it has begun so many steps and for some time more, or to the end."""
        for _ in self._lines():
            if steps is not None and self.steps >= steps:
                Event().wait(seconds)
                return
        if steps is None:
            self._process.wait()
        assert self.done, self.errors()

    def kill(self) -> None:
        """Kill it; what the store said before counts."""
        self._process.kill()
        for _ in self._lines():
            pass
        self._process.wait()

    def errors(self) -> str:
        """What it wrote to stderr so far."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _lines(self) -> Iterator[None]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            match line.decode().rstrip("\n").split(" ", 2):
                case ["step", *_]:
                    self.steps += 1
                case ["told", kind, name]:
                    self._promises.hear(kind, name)
                case ["done"]:
                    self.done = True
            yield


def recover(case: Case) -> list[str]:
    """Repair what a check finds, and tell what a check finds then, leftovers included."""
    for repaired in case.repair.repair(case.check.run()):
        assert repaired.done or not repaired.finding.fixable, repaired
    found = case.check.run(read_data=True)
    return [f"{each.problem} {each.object}: {each.message}" for each in found]
