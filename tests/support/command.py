"""The ``cas`` command on the store of a test, in this process or in one of its own."""

__all__ = ["Cas", "CasProcess", "Result", "write_configuration"]

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pytest

from cas.cli.main import main
from cas.model.settings import Settings
from tests.support import stopping_command
from tests.support.frozen import stands
from tests.support.waiting import wait_for

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a call of the command left."""

    status: int
    out: str
    err: str

    def assert_orderly(self, *statuses: int) -> None:
        """It ended with one of the statuses, and without any words meant for us only."""
        assert self.status in statuses, self
        assert "Traceback" not in self.err, self
        assert "internal-error" not in self.err, self


class Cas:
    """Calls the command in this process.

    Args:
        settings: Of the store.
        directory: For the configuration file.
        capture: Of this test.
    """

    def __init__(
        self, settings: Settings, directory: Path, capture: pytest.CaptureFixture[str]
    ) -> None:
        self._config = write_configuration(directory, settings)
        self._capture = capture

    def __call__(self, *arguments: object) -> Result:
        """Run it to its end."""
        self._capture.readouterr()
        status = main(["--config", str(self._config), *map(str, arguments)])
        captured = self._capture.readouterr()
        return Result(status, captured.out, captured.err)


class CasProcess:
    """One call in a process of its own that tells every call to containerd; a context manager.

    Args:
        config: Written by :func:`write_configuration`.
        arguments: Of the command.
        stopping: Where it stops itself, as variables of :mod:`tests.support.stopping_command`.
    """

    def __init__(
        self, config: Path, *arguments: object, stopping: Mapping[str, str] | None = None
    ) -> None:
        self._told: list[str] = []
        module = "cas" if stopping is None else stopping_command.__name__
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--config", config, "-vv", *map(str, arguments)],
            cwd=_ROOT,
            env={**os.environ, **(stopping or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_calls(self, count: int) -> bool:
        """Wait until it has made so many calls; False if it ended before."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._told.append(line)
            count -= "containerd call" in line
            if not count:
                return True
        return False

    def go_on_with(self, number: signal.Signals) -> None:
        """Wait until it has stopped itself, and let it go on with a signal."""
        assert self._process.stderr is not None
        while not self._told or self._told[-1] != stopping_command.STOPS:
            self._told.append(next(self._process.stderr))
        wait_for(lambda: stands(self.pid))
        for each in (number, signal.SIGCONT):
            self._process.send_signal(each)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._process.kill()

    def result(self) -> Result:
        """Wait for its end and tell how it ended; a status below 0 is the signal that did it."""
        assert self._process.stderr is not None
        assert self._process.stdout is not None
        self._told += self._process.stderr
        out = self._process.stdout.read()
        return Result(self._process.wait(), out, "".join(self._told))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with self._process:  # closes the pipes
            pass


def write_configuration(directory: Path, settings: Settings) -> Path:
    """Write the settings as a file of the command."""
    path = directory / "cas.toml"
    # JSON writes numbers and booleans as TOML does.
    limits = "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in asdict(settings.limits).items()
    )
    owners = "".join(f'{role} = "{name}"\n' for role, name in settings.owners.items())
    path.write_text(
        f'persist = "{settings.persist}"\naddress = "{settings.socket}"\n'
        f'namespace = "{settings.namespace}"\nworkers = {settings.workers}\n'
        f"wait_seconds = {settings.wait_seconds}\n"
        f"[owners]\n{owners}[limits]\n{limits}"
    )
    return path
